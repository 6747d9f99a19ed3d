"""JSON that the clients send as it is."""

from __future__ import annotations

from typing import Any

import pytest

from client_twins import Ask, both_clients
from nemotron_client import Client, ContentDelta, InvalidRequest, Json, wire
from scripted_server import HI, answer, scripted_server

MESSAGES = '[ {"role":"user", "content":"caf\\u00e9 \\ud83d ü", "n": 1.0e+2, "n":12345678901234567890.10} ]'
OTHERS: dict[wire.Tensor, Any] = {
    wire.TOOLS: ("tools", '[{"name": "f" , "x": 1E5}]'),
    wire.GUIDED_DECODING_GUIDE: ("guide", '{"maximum": 1.50}'),
    wire.LOGIT_BIAS: ("logit_bias", '{ "7" : -1.0e1 }'),
    wire.CHAT_TEMPLATE_KWARGS: ("chat_template_kwargs", "{ }"),
    wire.TOOL_CHOICE: ("tool_choice", '{"type" :"function"}'),
}


def sent(request: Any) -> dict[str, bytes]:
    """The texts in a request, by tensor."""
    return {
        tensor.name: data[4:]
        for tensor, data in zip(request.inputs, request.raw_input_contents, strict=True)
        if tensor.datatype == "BYTES"
    }


@pytest.mark.parametrize("encoded", [False, True], ids=["text", "bytes"])
@both_clients
def test_it_is_sent_byte_for_byte(ask: Ask, encoded: bool) -> None:
    def raw(text: str) -> Json:
        return Json(text.encode() if encoded else text)

    with scripted_server(lambda request, context: answer("ja")) as server:
        events = ask(server.url, raw(MESSAGES), **{option: raw(text) for option, text in OTHERS.values()})

    assert events[0] == ContentDelta("ja")
    expected = {wire.MESSAGES.name: MESSAGES} | {tensor.name: text for tensor, (_, text) in OTHERS.items()}
    assert sent(server.requests[0]) == {name: text.encode() for name, text in expected.items()}


def test_what_is_no_text_is_no_json() -> None:
    with pytest.raises(InvalidRequest, match="Json is made of text or bytes, and not of"):
        Json([])  # type: ignore[arg-type]


def test_a_run_needs_messages_that_it_can_go_on_with() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(InvalidRequest, match="messages is Json"):
        client.run(Json("[]"), tools=[])  # type: ignore[arg-type]
    with Client("127.0.0.1:1") as client, pytest.raises(InvalidRequest, match="tools is Json"):
        client.run(HI, tools=Json("[]"))  # type: ignore[arg-type]
