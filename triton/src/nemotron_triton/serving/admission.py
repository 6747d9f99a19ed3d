"""Which requests are taken: what could only wait in vain is refused at once, before any work is done for it."""

from __future__ import annotations

from dataclasses import dataclass

from nemotron_triton.errors import EngineError, OverloadedError
from nemotron_triton.serving.requests import Requests

# What the texts of all requests together may take, which a limit on each does not bound.
_MAX_TEXT_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Room for as many of `requests` as run at once, `slots`, and as may wait, `queue`."""

    requests: Requests
    slots: int
    queue: int

    @property
    def is_open(self) -> bool:
        """Whether requests are taken at all."""
        return not (self.requests.problem or self.requests.draining)

    def check(self) -> None:
        """Raise where there is no room for the request that came last."""
        if self.requests.problem:
            raise EngineError(self.requests.problem)
        if self.requests.draining:
            raise OverloadedError("the server is stopping; ask another one, or retry later")
        if self.requests.running > self.slots + self.queue:
            raise OverloadedError(
                f"{self.slots} requests run and {self.queue} wait, which is all there is room for; retry later"
            )

    def check_bytes(self) -> None:
        """Raise where there is no room for the text of the request that was read last."""
        size = self.requests.size_bytes
        if size > _MAX_TEXT_BYTES:
            raise OverloadedError(
                f"the requests here hold {size >> 20} MiB, and there is room for {_MAX_TEXT_BYTES >> 20}; retry later"
            )
