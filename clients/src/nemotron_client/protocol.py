"""Requests and responses as protobuf messages: plain functions, the same for every kind of client."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from nemotron_client import wire
from nemotron_client.errors import ClientError
from nemotron_client.events import ContentDelta, Event, Finish, Problem, ReasoningDelta, ToolCall, Usage

_INPUTS = {tensor.name: tensor for tensor in wire.INPUTS}
_OUTPUTS = {tensor.name: tensor for tensor in wire.OUTPUTS}
_JSON = {tensor.name for tensor in (wire.MESSAGES, wire.TOOLS, wire.TOOL_CHOICE, wire.CHAT_TEMPLATE_KWARGS)}


def stubs(channel: Any) -> Any:
    """Triton's gRPC methods on *channel*."""
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def chat_request(values: Mapping[str, Any], *, request_id: str) -> Any:
    """A streaming request for the `nemotron` model. *values* are by tensor name; None is left out.

    Raises `ClientError` when a value cannot be sent, such as messages that are not JSON or a number out of range.
    """
    request = service_pb2.ModelInferRequest(model_name=wire.MODEL_NAME, id=request_id)
    for name, value in {**values, wire.STREAM.name: True}.items():
        if value is not None:
            _add(request, _INPUTS[name], value)
    return request


def _add(request: Any, tensor: wire.Tensor, value: Any) -> None:
    try:
        if tensor.name in _JSON or isinstance(value, Mapping):
            value = json.dumps(value, ensure_ascii=False)
        values = [value] if tensor.dims == (1,) else _listed(value)
        data = b"".join(_packed(tensor, each) for each in values)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ClientError(f"{tensor.name} cannot be sent: {error}") from error
    request.inputs.add(name=tensor.name, datatype=tensor.dtype, shape=[1, len(values)])
    request.raw_input_contents.append(data)


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str):
        raise TypeError(f"{value!r} is no list")
    return list(value)


def _packed(tensor: wire.Tensor, value: Any) -> bytes:
    """Triton's raw form: little-endian numbers, and text with its length in 4 bytes before it."""
    if tensor.dtype == "BYTES":
        text = value.encode("utf-8")
        return len(text).to_bytes(4, "little") + bytes(text)
    if tensor.dtype in ("INT32", "UINT64"):
        limits = np.iinfo(wire.NUMPY[tensor.dtype])
        if not limits.min <= value <= limits.max:
            raise ValueError(f"{value} is not between {limits.min} and {limits.max}")
    return bytes(np.array([value], dtype=wire.NUMPY[tensor.dtype]).tobytes())


def read_events(response: Any) -> Iterator[Event]:
    """The events in one `ModelInferResponse`, in the order they were generated."""
    values = {
        output.name: _unpacked(_OUTPUTS[output.name], data)
        for output, data in zip(response.outputs, response.raw_output_contents, strict=True)
        if output.name in _OUTPUTS
    }
    if text := values.get(wire.REASONING_OUTPUT.name):
        yield ReasoningDelta(text)
    if text := values.get(wire.TEXT_OUTPUT.name):
        yield ContentDelta(text)
    for delta in json.loads(values.get(wire.TOOL_CALLS.name, "[]")):
        yield ToolCall.from_delta(delta)
    if reason := values.get(wire.FINISH_REASON.name):
        usage = Usage(
            input_tokens=values[wire.NUM_INPUT_TOKENS.name],
            output_tokens=values[wire.NUM_OUTPUT_TOKENS.name],
            reasoning_tokens=values[wire.NUM_REASONING_TOKENS.name],
        )
        problems = tuple(Problem(**each) for each in json.loads(values.get(wire.PROBLEMS.name, "[]")))
        yield Finish(reason=reason, usage=usage, problems=problems)


def _unpacked(tensor: wire.Tensor, data: bytes) -> Any:
    if tensor.dtype != "BYTES":
        values = np.frombuffer(data, dtype=wire.NUMPY[tensor.dtype]).tolist()
        return values[0] if tensor.dims == (1,) else values
    if len(data) < 4 or int.from_bytes(data[:4], "little") != len(data) - 4:
        raise ValueError(f"{tensor.name} is not one string")
    return data[4:].decode("utf-8")
