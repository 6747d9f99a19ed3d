"""The `nemotron` Triton model: hands each request to the event loop of `nemotron_triton.serving.service`."""

from __future__ import annotations

import triton_python_backend_utils as pb_utils

from nemotron_triton.serving.service import Service


class TritonPythonModel:
    """What tritonserver's Python backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the bundle and its engine."""
        self._service = Service.start(args, pb_utils)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> None:
        """Take the requests over; their answers are sent from the event loop."""
        for request in requests:
            self._service.submit(request)

    def is_ready(self) -> bool:
        """Whether requests should come here; asked by tritonserver 26.03 and later."""
        return self._service.is_ready

    def finalize(self) -> None:
        """Stop the engine."""
        self._service.close()
