"""The part of `triton_python_backend_utils` that the service uses, with requests and a sender of their responses."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

FINAL = 1


@dataclass
class Sender:
    """A response sender that keeps the responses, or fails."""

    responses: list[Any] = field(default_factory=list)
    finals: int = 0
    fails: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    def send(self, response: Any, flags: int = 0) -> None:
        if self.fails:
            raise MemoryError("no space left in /dev/shm")
        self.responses.append(response)
        if flags == FINAL:
            self.finals += 1
            self.ended.set()

    def is_cancelled(self) -> bool:
        return False


class Anything:
    """A metric, or a family of them, whose values no test reads."""

    COUNTER, GAUGE, HISTOGRAM = range(3)

    def __init__(self, **_: Any) -> None:
        pass

    def __getattr__(self, _: str) -> Callable[..., Anything]:
        return lambda *_, **__: Anything()


def error(message: str, code: int) -> SimpleNamespace:
    """A `TritonError`, with its codes as attributes."""
    return SimpleNamespace(message=message, code=code)


for number, code_name in enumerate(("INVALID_ARG", "UNAVAILABLE", "CANCELLED", "INTERNAL")):
    setattr(error, code_name, number)
PB_UTILS = SimpleNamespace(
    TRITONSERVER_RESPONSE_COMPLETE_FINAL=FINAL,
    TritonError=error,
    MetricFamily=Anything,
    InferenceResponse=lambda output_tensors, error=None: SimpleNamespace(tensors=dict(output_tensors), error=error),
    Tensor=lambda name, array: (name, array),
)


def request(sender: Sender, *, request_id: str = "a", **tensors: Any) -> Any:
    """A request as Triton hands it over, with a prompt if it has no messages; a tensor that is None is left out."""
    values = tensors if "messages" in tensors else {"text_input": "Hello", **tensors}
    inputs = []
    for name, value in values.items():
        if value is None:
            continue
        array = np.array([[value.encode() if isinstance(value, str) else value]])
        inputs.append(SimpleNamespace(name=lambda name=name: name, as_numpy=lambda array=array: array))
    return SimpleNamespace(
        get_response_sender=lambda: sender,
        request_id=lambda: request_id,
        timeout=lambda: 0,
        parameters=lambda: json.dumps({}),
        inputs=lambda: inputs,
    )
