"""The tensors of the `nemotron` model with nothing behind them: what tritonserver and its Python backend cost alone.

It answers with as many responses as `max_tokens` says, all of them text but for the tensors of the end, and with an
error where that is 0.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One event loop in a thread, a task for each request."""

    def initialize(self, _args: dict[str, str]) -> None:
        """Start the loop."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> None:
        """Start a task for each."""
        for request in requests:
            responses = int(pb_utils.get_input_tensor_by_name(request, "max_tokens").as_numpy().flat[0])
            asyncio.run_coroutine_threadsafe(_respond(responses, request.get_response_sender()), self._loop)

    def finalize(self) -> None:
        """End the loop: a thread that goes on would keep the process."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


async def _respond(responses: int, sender: Any) -> None:
    final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
    if not responses:
        error = pb_utils.TritonError("INVALID_ARGUMENT: max_tokens is 0", pb_utils.TritonError.INVALID_ARG)
        sender.send(pb_utils.InferenceResponse(output_tensors=[], error=error), flags=final)
        return
    for _ in range(responses - 1):
        sender.send(pb_utils.InferenceResponse(output_tensors=[_text("text_output", "words and ")]))
        await asyncio.sleep(0)
    counts = ("num_input_tokens", "num_output_tokens", "num_reasoning_tokens")
    tensors = [_text("text_output", "words."), _text("finish_reason", "stop")]
    tensors += [pb_utils.Tensor(name, np.array([[1]], dtype=np.int32)) for name in counts]
    sender.send(pb_utils.InferenceResponse(output_tensors=tensors), flags=final)


def _text(name: str, text: str) -> Any:
    return pb_utils.Tensor(name, np.array([[text.encode()]], dtype=np.object_))
