"""`preprocessing` and `postprocessing`: what is too long is refused before anything reads it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from nemotron_triton.bundle import Bundle
from nemotron_triton.repository import write_repository
from nemotron_triton.serving.settings import Settings
from nemotron_triton.serving.text_models import TextModel

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


class Failure(Exception):
    """A `TritonError`, which has its codes on it."""

    INVALID_ARG = 3


# As much of `triton_python_backend_utils` as is used; a request is its tensors by name.
PB = SimpleNamespace(
    TritonError=Failure,
    Tensor=lambda name, values: (name, values),
    InferenceResponse=lambda output_tensors, error=None: error or dict(output_tensors),
    get_input_tensor_by_name=lambda request, name: (
        SimpleNamespace(as_numpy=lambda: request[name]) if name in request else None
    ),
)


@pytest.fixture(scope="module")
def repository(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("limited") / "models"
    write_repository(bundle, path, Settings(max_prompt_bytes=2 << 20, max_messages=2, max_tools=1), link=True)
    return path


def answer(repository: Path, model: str, **values: str) -> Any:
    """What the *model* says to *values*: its tensors by name, or the error."""
    config = text_format.Parse((repository / model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    args = {
        "model_repository": str(repository / model),
        "model_config": json_format.MessageToJson(config, preserving_proto_field_name=True),
    }
    started = getattr(TextModel, model)(args, PB)
    request = {name: np.array([[value.encode()]], dtype=np.object_) for name, value in values.items()}
    (response,) = started.execute([request])
    return response


@pytest.mark.parametrize(
    ("model", "values", "complaint"),
    [
        ("preprocessing", {"messages": "x" * (2 << 20) + "x"}, "messages has 2097153 bytes; at most 2097152"),
        ("preprocessing", {"messages": json.dumps([{"role": "user", "content": "x"}] * 3)}, "messages has 3 entries"),
        ("postprocessing", {"raw_output": "x" * (1 << 20) + "x"}, "raw_output has 1048577 bytes; at most 1048576"),
        ("postprocessing", {"raw_output": "x", "tools": json.dumps([TOOL] * 2)}, "tools has 2 entries; at most 1"),
        ("postprocessing", {"raw_output": "x", "tools": "x" * (2 << 20) + "x"}, "tools has 2097153 bytes"),
    ],
)
def test_what_is_too_long_is_refused(repository: Path, model: str, values: dict[str, str], complaint: str) -> None:
    response = answer(repository, model, **values)

    assert isinstance(response, Failure)
    assert complaint in str(response)


def test_what_is_as_long_as_it_may_be_is_taken(repository: Path) -> None:
    response = answer(repository, "postprocessing", raw_output="x" * (1 << 20), tools=json.dumps([TOOL]))

    assert response["text_output"].item() == b"x" * (1 << 20)
