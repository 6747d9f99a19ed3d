"""The `nemotron` Triton model, whole, with the replaying engine in it."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.environ["NEMOTRON_REPLAY"])

import triton_python_backend_utils as pb_utils
from engine import ReplayEngine

from nemotron_triton.serving.service import Service


class TritonPythonModel:
    """As `model_repo/nemotron`, but for the engine."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load everything but an engine."""
        self._service = Service.start(args, pb_utils, start_engine=ReplayEngine)

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> None:
        """Take the requests over."""
        for request in requests:
            self._service.submit(request)

    def finalize(self) -> None:
        """Stop."""
        self._service.close()
