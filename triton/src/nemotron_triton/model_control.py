"""Model control of a running tritonserver: its load call, with the value that only `nemotron serve` knows."""

from __future__ import annotations

import http.client
import json
import re
import urllib.parse
from dataclasses import dataclass, field

from nemotron_triton.access import CONTROL_HEADER
from nemotron_triton.errors import ServerError

_WHY = re.compile(r"(?:TritonModelException|Error): (.+)")


class UnansweredError(ServerError):
    """tritonserver did not answer, so it is not known what it does."""


@dataclass(frozen=True, kw_only=True)
class ModelControl:
    """Model control over HTTP, which is on this machine's own address and needs no certificates."""

    http_url: str
    value: str = field(repr=False)

    def load(self, model: str, *, timeout_s: float) -> None:
        """Load *model* anew from the repository; `ServerError` has tritonserver's reason, or says it did not answer."""
        headers = {CONTROL_HEADER: self.value}
        try:
            status, text = self._ask("POST", f"/v2/repository/models/{model}/load", timeout_s, "{}", headers)
        except (OSError, http.client.HTTPException) as error:
            raise UnansweredError(f"tritonserver did not answer to loading {model}: {error!r}") from error
        if status != http.client.OK:
            raise ServerError(_reason(text))

    def is_ready(self, *, timeout_s: float) -> bool:
        """Whether the server says that it is ready; `UnansweredError` where it says nothing."""
        try:
            return self._ask("GET", "/v2/health/ready", timeout_s)[0] == http.client.OK
        except (OSError, http.client.HTTPException) as error:
            raise UnansweredError(f"tritonserver did not say whether it is ready: {error!r}") from error

    def _ask(
        self, method: str, path: str, timeout_s: float, body: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        url = urllib.parse.urlsplit(self.http_url)
        assert url.hostname
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=timeout_s)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        finally:
            connection.close()


def _reason(text: str) -> str:
    """The sentence in tritonserver's answer that gives the reason."""
    try:
        message = str(json.loads(text)["error"])
    except (ValueError, LookupError, TypeError):
        message = text
    match = _WHY.search(message)
    return match[1].strip() if match else message.strip().partition("\n")[0]
