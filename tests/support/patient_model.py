"""The `nemotron` model, which loads only while a file exists: the one that an environment variable names."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from nemotron_triton.serving.service import Service

GATE = "NEMOTRON_TEST_GATE"


class TritonPythonModel:
    """`model_repo/nemotron` behind a gate."""

    def initialize(self, args: dict[str, str]) -> None:
        """Wait for the file, a minute at most, then load."""
        deadline = time.monotonic() + 60
        while not Path(os.environ[GATE]).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        self._service = Service.start(args, pb_utils)

    def execute(self, requests: list[Any]) -> None:
        """Take the requests over."""
        for request in requests:
            self._service.submit(request)

    def finalize(self) -> None:
        """Stop."""
        self._service.close()
