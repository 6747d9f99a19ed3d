"""Who sends a request, and by which name it is known in every log."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Any

from nemotron_client.identity import is_traceparent
from nemotron_gateway.exchange import Scope, header

_REQUEST_ID = re.compile(r"[!-~]{1,128}")


@dataclass
class Visit:
    """One request: its id, which the caller may choose, the trace it belongs to, and the caller's name, if known."""

    request_id: str
    traceparent: str | None = None
    caller: str = ""

    @classmethod
    def of(cls, scope: Scope) -> Visit:
        """That of the request with these headers; what cannot be used of them counts as left out."""
        request_id = header(scope, b"x-request-id")
        traceparent = header(scope, b"traceparent")
        return cls(
            request_id=request_id if _REQUEST_ID.fullmatch(request_id) else uuid.uuid4().hex,
            traceparent=traceparent if is_traceparent(traceparent) else None,
        )

    def options(self) -> dict[str, Any]:
        """The client's options for it."""
        options: dict[str, Any] = {"request_id": self.request_id}
        if self.traceparent:
            options["traceparent"] = self.traceparent
        if self.caller:
            options["caller"] = self.caller
        return options


def visit_of(scope: Scope) -> Visit:
    """The visit that the door has put into *scope*."""
    visit: Visit = scope["state"]["visit"]
    return visit
