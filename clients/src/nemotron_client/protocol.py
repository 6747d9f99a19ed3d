"""Requests as protobuf messages, and Triton's methods on a channel: the same for both clients.

tritonclient's messages are imported where they are used: its package imports all of its own clients, and takes longer
than all else that a client needs.
"""

from __future__ import annotations

import json
import operator
import struct
from collections.abc import Mapping
from typing import Any

from nemotron_client import wire
from nemotron_client.errors import InvalidRequest
from nemotron_client.json_text import Json
from nemotron_client.options import option_name

# tritonserver's limit, and the client's for what it takes.
MAX_MESSAGE_BYTES = 64 << 20
# What is added to a request when it is sent.
_RESERVED_BYTES = 1024
_TENSORS = {
    tensor.name: tensor
    for tensor in (*wire.INPUTS, wire.DESCRIPTION, *wire.PREPROCESSING_INPUTS, *wire.PREPROCESSING_OUTPUTS)
}
_text_length = struct.Struct("<I").unpack_from
_PACKED = {"BOOL": "<?", "INT32": "<i", "UINT64": "<Q", "FP32": "<f"}
_LIMITS = {"INT32": (-(2**31), 2**31 - 1), "UINT64": (0, 2**64 - 1)}
_JSON = {tensor.name for tensor in (wire.MESSAGES, wire.TOOLS, wire.CHAT_TEMPLATE_KWARGS)}


class Methods:
    """Triton's gRPC methods on a channel of `grpc` or `grpc.aio`, with the requests that are always the same."""

    def __init__(self, channel: Any) -> None:
        from tritonclient.grpc import service_pb2, service_pb2_grpc

        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self.server_live, self.live_request = stub.ServerLive, service_pb2.ServerLiveRequest()
        self.server_ready, self.server_ready_request = stub.ServerReady, service_pb2.ServerReadyRequest()
        self.model_ready, self.ready_request = stub.ModelReady, service_pb2.ModelReadyRequest(name=wire.MODEL_NAME)
        self.model_metadata = stub.ModelMetadata
        self.infer = stub.ModelInfer
        # One request, then half-closed: the same on the wire as Triton's stream of requests, without the thread, or the
        # task, that would feed it.
        self.stream_infer = channel.unary_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )


def triton_messages() -> Any:
    """The module of Triton's protobuf messages."""
    from tritonclient.grpc import service_pb2

    return service_pb2


def infer_request(model: str, values: Mapping[str, Any], *, request_id: str) -> Any:
    """A request for *model*. *values* are by tensor name; None is left out.

    Raises `InvalidRequest` when a value cannot be sent, such as messages that are not JSON, a
    number out of range, or too much altogether.
    """
    request = triton_messages().ModelInferRequest(model_name=model, id=request_id)
    for name, value in values.items():
        if value is not None:
            _add(request, _TENSORS[name], value)
    if (size := request.ByteSize()) > MAX_MESSAGE_BYTES - _RESERVED_BYTES:
        contents = request.raw_input_contents
        largest = max(range(len(contents)), key=lambda place: len(contents[place]))
        raise InvalidRequest(
            f"the request has {size:,} bytes; gRPC takes {MAX_MESSAGE_BYTES:,} in a message",
            field=option_name(request.inputs[largest].name),
            code="too_large",
            value=size,
            limit=MAX_MESSAGE_BYTES,
        )
    return request


def output_values(response: Any) -> dict[str, Any]:
    """The values in a `ModelInferResponse` by tensor name; `ValueError` when they are not what they should be."""
    return {
        output.name: unpacked(_TENSORS[output.name], data)
        for output, data in zip(response.outputs, response.raw_output_contents, strict=True)
        if output.name in _TENSORS
    }


def unpacked(tensor: wire.Tensor, data: bytes) -> Any:
    """The value, or the list of numbers, that *data* holds in Triton's raw form."""
    if tensor.dtype != "BYTES":
        try:
            values = [value for (value,) in struct.iter_unpack(_PACKED[tensor.dtype], data)]
        except struct.error as error:
            raise ValueError(f"{tensor.name} is cut off: {error}") from error
        return values[0] if tensor.dims == (1,) else values
    if len(data) < 4 or _text_length(data)[0] != len(data) - 4:
        raise ValueError(f"{tensor.name} is not one string")
    return data[4:].decode("utf-8")


def _add(request: Any, tensor: wire.Tensor, value: Any) -> None:
    try:
        if isinstance(value, Json):
            value = value.text
        elif isinstance(value, Mapping):
            value = json.dumps(dict(value), ensure_ascii=False, allow_nan=False)
        elif tensor.name in _JSON:
            value = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if tensor.dims != (1,) and isinstance(value, str):
            raise TypeError(f"{value!r} is no list")
        values = [value] if tensor.dims == (1,) else list(value)
        data = b"".join(_packed(tensor, value) for value in values)
    except (TypeError, ValueError, OverflowError, RecursionError, AttributeError) as error:
        name = option_name(tensor.name)
        raise InvalidRequest(f"{name} cannot be sent: {error}", field=name) from error
    request.inputs.add(name=tensor.name, datatype=tensor.dtype, shape=[1, len(values)])
    request.raw_input_contents.append(data)


def _packed(tensor: wire.Tensor, value: Any) -> bytes:
    """Triton's raw form: little-endian numbers, and text with its length in 4 bytes before it."""
    if tensor.dtype == "BYTES":
        if not isinstance(value, (str, bytes)):
            raise TypeError(f"{value!r} is no text")
        # In JSON, half a surrogate pair can be an escape; the server makes U+FFFD of one in a message.
        errors = "backslashreplace" if tensor.name in _JSON else "strict"
        text = value if isinstance(value, bytes) else value.encode("utf-8", errors)
        return len(text).to_bytes(4, "little") + text
    if isinstance(value, bool) != (tensor.dtype == "BOOL"):
        raise TypeError(f"{value!r} is no {'truth value' if tensor.dtype == 'BOOL' else 'number'}")
    if tensor.dtype in _LIMITS:
        value, (low, high) = operator.index(value), _LIMITS[tensor.dtype]
        if not low <= value <= high:
            raise ValueError(f"{value} is not between {low} and {high}")
    try:
        return struct.pack(_PACKED[tensor.dtype], value)
    except struct.error as error:
        raise TypeError(f"{value!r} is no number") from error
