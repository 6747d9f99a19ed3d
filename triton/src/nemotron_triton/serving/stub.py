"""The process that each model runs in: tritonserver's Python stub, put right before anything heavy is imported."""

from __future__ import annotations

import sys
from typing import Any

from nemotron_triton.serving.text_tensors import TextTensor


def prepare_stub(pb_utils: Any) -> None:
    """What every model does first when it is loaded."""
    # The stub puts '' on sys.path. Where tritonserver is started in a checkout, the folders `build` and `triton` would
    # pose as the packages of those names, and PyTorch takes `find_spec("triton")` for a compiler.
    sys.path[:] = [entry for entry in sys.path if entry]
    pb_utils.deserialize_bytes_tensor = TextTensor
