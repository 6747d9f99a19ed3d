"""`preprocessing` and `postprocessing`: what is too long is refused before anything reads it."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
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
    """A `TritonError`, with its codes as attributes."""

    INVALID_ARG = 3


class Request(dict[str, Any]):
    """The tensors of a request by name; it came without headers."""

    def parameters(self) -> str:
        return "{}"


# The part of `triton_python_backend_utils` that is used.
PB = SimpleNamespace(
    TritonError=Failure,
    TritonModelException=Failure,
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
    """The *model*'s response to *values*: its tensors by name, or the error."""
    (response,) = started(repository, model).execute([request(**values)])
    return response


def started(repository: Path, model: str) -> TextModel:
    config = text_format.Parse((repository / model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    args = {
        "model_repository": str(repository / model),
        "model_config": json_format.MessageToJson(config, preserving_proto_field_name=True),
    }
    text_model: TextModel = getattr(TextModel, model)(args, PB)
    return text_model


def request(**values: str) -> Request:
    return Request({name: np.array([[value.encode()]], dtype=np.object_) for name, value in values.items()})


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


def test_half_a_character_in_an_option_is_refused(repository: Path) -> None:
    messages = json.dumps([{"role": "user", "content": "Hello"}])

    response = answer(repository, "preprocessing", messages=messages, chat_template_kwargs=r'{"\ud800": 1}')

    assert isinstance(response, Failure)
    assert "chat_template_kwargs holds half a surrogate pair" in str(response)


def test_a_template_is_read_once_and_outlives_its_file(bundle: Bundle, tmp_path: Path) -> None:
    template = b"{{ messages[-1].content }}!"
    shutil.copytree(bundle.path, tmp_path / "bundle")
    (tmp_path / "bundle" / "chat_template.jinja").write_bytes(template)
    outputs = {**bundle.manifest.outputs, "chat_template.jinja": hashlib.sha256(template).hexdigest()}
    manifest = replace(bundle.manifest, outputs=outputs)
    (tmp_path / "bundle" / "manifest.json").write_text(manifest.to_json())
    write_repository(Bundle(tmp_path / "bundle", manifest), tmp_path / "models", Settings(), link=True)
    model = started(tmp_path / "models", "preprocessing")
    (tmp_path / "bundle" / "chat_template.jinja").unlink()

    (response,) = model.execute([request(messages=json.dumps([{"role": "user", "content": "Hello"}]))])

    assert response["prompt"].item() == b"Hello!"
    with pytest.raises(Failure, match=r"lacks chat_template.jinja"):
        started(tmp_path / "models", "preprocessing")


def test_what_is_as_long_as_it_may_be_is_taken(repository: Path) -> None:
    response = answer(repository, "postprocessing", raw_output="x" * (1 << 20), tools=json.dumps([TOOL]))

    assert response["text_output"].item() == b"x" * (1 << 20)


def test_arguments_that_break_their_schema_are_a_problem(repository: Path) -> None:
    call = '<TOOLCALL>[{"name": "f", "arguments": {"a": 1}}]</TOOLCALL>'
    tool = {"function": {"name": "f", "parameters": {"properties": {"a": {"type": "string"}}}}}

    response = answer(repository, "postprocessing", raw_output=call, tools=json.dumps([tool]))

    (problem,) = json.loads(response["problems"].item())
    assert (problem["code"], problem["function"]) == ("invalid_arguments", "f")


def test_the_control_tokens_of_a_finished_prompt_count_and_those_of_a_message_do_not(repository: Path) -> None:
    text = "<|eot_id|>"

    finished = answer(repository, "preprocessing", text_input=text)
    said = answer(repository, "preprocessing", messages=json.dumps([{"role": "user", "content": text}]))
    empty = answer(repository, "preprocessing", messages=json.dumps([{"role": "user", "content": ""}]))

    assert finished["prompt"].item() == text.encode()
    assert finished["num_input_tokens"].item() == 1
    assert said["num_input_tokens"].item() > empty["num_input_tokens"].item() + 1
