"""Stands in for TensorRT-LLM 1.2.1's PyTorch backend; see `llmapi`."""

from typing import ClassVar

from .llmapi import BaseLLM


class LLM(BaseLLM):
    """Loads a Hugging Face checkpoint."""

    kind: ClassVar[str] = "pytorch"
