"""What can go wrong in the gateway.

GatewayError
├── SettingError   it cannot start: a flag, a file or an address is wrong
└── ApiError       a caller is answered with an error
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class GatewayError(Exception):
    """Base of every error this package raises on purpose."""


class SettingError(GatewayError):
    """The gateway cannot start; the message says what to change."""


class ApiError(GatewayError):
    """An error as OpenAI's API has it: an HTTP *status*, and a body with `message`, `type`, `param` and `code`.

    *param* is the field of the request that is wrong, *headers* are further ones of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = headers

    def body(self, request_id: str) -> dict[str, Any]:
        """The JSON of the response; *request_id* is the request's name in every log."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error | {"request_id": request_id}}


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """The error of a request that is wrong."""
    return ApiError(400, message, param=param, code=code)
