"""Stands in for TensorRT-LLM 1.2.1's compiled engines; see `llmapi`."""

from typing import ClassVar

from .llmapi import BaseLLM


class LLM(BaseLLM):
    """Loads an engine directory."""

    kind: ClassVar[str] = "tensorrt"
