"""The stand-in for TensorRT-LLM accepts what 1.2.1 accepts, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from contract import BreachError
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.start import start_engine
from nemotron_triton.errors import EngineError
from tensorrt_llm_engine import (
    gpu_bundle,
    tensorrt_llm,
)


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[ModuleType]:
    with tensorrt_llm(tmp_path / "site") as llmapi:
        yield llmapi


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"thinking_token_budget": 5}, "not verified for 1.2.1"),
        ({"max_new_tokens": 5}, "SamplingParams has no max_new_tokens"),
        ({"top_k": 1.5}, "not int"),
        ({"ignore_eos": 1}, "not bool"),
        ({"max_tokens": True}, "not int"),
    ],
)
def test_the_stand_in_takes_no_other_field_and_no_other_type(
    stand_in: ModuleType, values: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(BreachError, match=complaint):
        stand_in.SamplingParams(**values)


def test_the_stand_in_takes_one_guide(stand_in: ModuleType) -> None:
    with pytest.raises(ValueError, match="Only one guide"):
        stand_in.GuidedDecodingParams(regex="a", json="{}")


def test_the_stand_in_takes_no_other_argument(bundle: Bundle, tmp_path: Path, stand_in: ModuleType) -> None:
    odd = gpu_bundle(bundle, tmp_path / "bundle", "tensorrt", cuda_graph_config={})

    with pytest.raises(EngineError, match="tensorrt has no cuda_graph_config"):
        start_engine(odd, TokenCodec(odd.tokenizer_path))
