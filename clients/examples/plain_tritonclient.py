"""Ask the `nemotron` model with plain tritonclient and none of this project's code.

    python clients/examples/plain_tritonclient.py 127.0.0.1:8001

Prints one JSON document: the reasoning, the answer, the tool calls, why it ended.
"""

from __future__ import annotations

import json
import queue
import sys
from typing import Any

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "calculate_tip",
            "description": "Calculate the tip for a bill",
            "parameters": {
                "type": "object",
                "properties": {
                    "bill_total": {"type": "integer", "description": "The total amount of the bill"},
                    "tip_percentage": {"type": "integer", "description": "The percentage of tip to be applied"},
                },
                "required": ["bill_total", "tip_percentage"],
            },
        },
    }
]
MESSAGES = [{"role": "user", "content": "My bill is $100. What will be the amount for 18% tip?"}]


def text_input(name: str, value: str) -> InferInput:
    """A string tensor of shape [1, 1]."""
    tensor = InferInput(name, [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[value.encode()]], dtype=np.object_))
    return tensor


def bool_input(name: str, value: bool) -> InferInput:
    """A boolean tensor of shape [1, 1]."""
    tensor = InferInput(name, [1, 1], "BOOL")
    tensor.set_data_from_numpy(np.array([[value]]))
    return tensor


def text_of(result: Any, name: str) -> str:
    """The string in an output tensor; empty when the response does not carry it."""
    values = result.as_numpy(name)
    return "" if values is None else values.flat[0].decode()


def ask(url: str) -> dict[str, Any]:
    """Stream one answer and put it together."""
    results: queue.Queue[tuple[Any, Exception | None]] = queue.Queue()
    answer: dict[str, Any] = {"reasoning": "", "content": "", "tool_calls": [], "finish_reason": ""}
    with InferenceServerClient(url) as client:
        client.start_stream(callback=lambda result, error: results.put((result, error)))
        client.async_stream_infer(
            "nemotron",
            [
                text_input("messages", json.dumps(MESSAGES)),
                text_input("tools", json.dumps(TOOLS)),
                bool_input("thinking", False),
                bool_input("stream", True),
            ],
        )
        while not answer["finish_reason"]:
            result, error = results.get(timeout=60)
            if error:
                raise error
            answer["reasoning"] += text_of(result, "reasoning_output")
            answer["content"] += text_of(result, "text_output")
            answer["tool_calls"] += json.loads(text_of(result, "tool_calls") or "[]")
            answer["finish_reason"] = text_of(result, "finish_reason")
    return answer


if __name__ == "__main__":
    sys.stdout.write(json.dumps(ask(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8001"), indent=2) + "\n")
