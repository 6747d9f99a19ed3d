"""The least a decoupled Python model can do: it sends recorded ids, one per response, and looks at nothing."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Any

sys.path.insert(0, os.environ["NEMOTRON_REPLAY"])

import numpy as np
import triton_python_backend_utils as pb_utils
from recording import recorded_ids


class TritonPythonModel:
    """One event loop in a thread, a task for each request."""

    def initialize(self, _args: dict[str, str]) -> None:
        """Start the loop."""
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> None:
        """Start a task for each."""
        for request in requests:
            tokens = int(pb_utils.get_input_tensor_by_name(request, "max_tokens").as_numpy().flat[0])
            asyncio.run_coroutine_threadsafe(self._respond(tokens, request.get_response_sender()), self._loop)

    async def _respond(self, tokens: int, sender: Any) -> None:
        for token_id in recorded_ids(tokens):
            ids = pb_utils.Tensor("token_id", np.array([[token_id]], dtype=np.int32))
            sender.send(pb_utils.InferenceResponse(output_tensors=[ids]))
            await asyncio.sleep(0)
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
