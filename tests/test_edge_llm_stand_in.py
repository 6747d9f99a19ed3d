"""The stand-in for TensorRT Edge-LLM accepts what 0.11.0's binding declares, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from contract import BreachError
from edge_llm_engine import edge_llm


@pytest.fixture
def native(tmp_path: Path) -> Iterator[ModuleType]:
    with edge_llm(tmp_path / "site") as native:
        yield native


def test_the_stand_in_takes_no_other_field_and_no_other_type(native: ModuleType) -> None:
    request = native.LLMGenerationRequest()

    with pytest.raises(AttributeError, match="has no min_p"):
        request.min_p = 0.1
    with pytest.raises(TypeError, match=r"top_k is 1.5, not int"):
        request.top_k = 1.5
    with pytest.raises(BreachError, match="RequestEngine has no engine"):
        native.RequestEngine(engine="somewhere")
