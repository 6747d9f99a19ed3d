"""Makes a running tritonserver say that it is not ready, while it goes on answering.

tritonserver has no call for that. But under strict readiness, its default, a server is ready only where no model has
failed to load; one that was *unloaded* does not count (triton-inference-server/core, r24.10 to r26.06,
src/server.cc, `InferenceServer::IsReady`). So a model that cannot be loaded lies in the repository, and the server is
asked to load it when it is to leave. It is never served, so nobody can call it, and it costs nothing.
"""

from __future__ import annotations

from pathlib import Path

from nemotron_triton.errors import ServerError
from nemotron_triton.model_control import ModelControl, UnansweredError

MODEL = "leaving"
# tritonserver looks for a backend of this name, and its log has the name.
_BACKEND = "none, for the server is to stop"
_CONFIG = f"""name: "{MODEL}"
backend: "{_BACKEND}"
input {{ name: "none" data_type: TYPE_BOOL dims: 1 }}
output {{ name: "none" data_type: TYPE_BOOL dims: 1 }}
"""
# tritonserver takes some milliseconds for each call.
_ANSWER_S = 2.0


def prepare(folder: Path) -> Path:
    """The repository, made in *folder*, that a server under explicit model control needs for `withdraw`."""
    repository = folder / "readiness"
    try:
        (repository / MODEL / "1").mkdir(parents=True)
        (repository / MODEL / "config.pbtxt").write_text(_CONFIG, encoding="utf-8")
    except OSError as error:
        raise ServerError(f"cannot write to {repository}: {error.strerror}") from error
    return repository


def withdraw(control: ModelControl) -> None:
    """Have the server's HTTP and gRPC health say that it is not ready; `ServerError` where they may not, within 4 s."""
    reason = "it is ready all the same"
    try:
        control.load(MODEL, timeout_s=_ANSWER_S)
    except UnansweredError:
        raise
    except ServerError as error:
        reason = str(error)
    if control.is_ready(timeout_s=_ANSWER_S):
        raise ServerError(reason)
