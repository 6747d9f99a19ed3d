"""The least a decoupled Python model with the configuration of `nemotron` can do: it sends text.

It reads every tensor of a request and looks at `max_tokens` only. The parameter `responses` says in how many responses
that many tokens are sent; without it each has one of its own. The last has the counts and the end of the answer.
"""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

_WORD = b" tip"


class TritonPythonModel:
    """One event loop in a thread, a task for each request."""

    def initialize(self, _args: dict[str, str]) -> None:
        """Start the loop."""
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> None:
        """Start a task for each."""
        for request in requests:
            values = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            tokens = int(values["max_tokens"].flat[0])
            responses = json.loads(request.parameters() or "{}").get("responses", tokens)
            asyncio.run_coroutine_threadsafe(
                self._respond(tokens, responses, request.get_response_sender()), self._loop
            )

    async def _respond(self, tokens: int, responses: int, sender: Any) -> None:
        text = _WORD * (tokens // responses)
        for _ in range(responses - 1):
            sender.send(pb_utils.InferenceResponse(output_tensors=[_text("text_output", text)]))
            await asyncio.sleep(0)
        counts = ("num_input_tokens", "num_output_tokens", "num_reasoning_tokens")
        end = [pb_utils.Tensor(name, np.array([[tokens]], dtype=np.int32)) for name in counts]
        end += [_text("text_output", text), _text("finish_reason", b"stop")]
        last = pb_utils.InferenceResponse(output_tensors=end)
        sender.send(last, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _text(name: str, value: bytes) -> Any:
    return pb_utils.Tensor(name, np.array([[value]], dtype=np.object_))
