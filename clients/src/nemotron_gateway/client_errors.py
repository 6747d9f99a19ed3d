"""The client's errors as a caller of OpenAI's API knows them: status, code, and the field that is wrong.

The server's messages name its tensors; here they get the names of OpenAI's fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from nemotron_client import wire
from nemotron_client.errors import AccessDenied, ClientError, DeadlineExceeded, Refusal, ServerUnavailable
from nemotron_client.options import option_name
from nemotron_gateway.errors import ApiError

# Options of the client that a request names otherwise.
_FIELDS = {"guide": "response_format", "guide_type": "response_format", "word_bias": "logit_bias"}
_RENAMED = {
    tensor.name: name
    for tensor in wire.INPUTS
    if (name := _FIELDS.get(option := option_name(tensor.name), option)) != tensor.name
}
# SDKs of OpenAI try again by themselves after every 5xx, unless they are told not to.
_DO_NOT_RETRY = {"x-should-retry": "false"}
_RETRY_SOON = {"retry-after": "1"}


def api_error(error: ClientError, names: Mapping[str, str]) -> ApiError:
    """*error* as a response; *names* are the fields of the request that have another name there than in the client."""
    if isinstance(error, AccessDenied):
        # Between gateway and server; a caller can do nothing about it, and learns nothing of it.
        return ApiError(502, "the server does not accept this gateway", code="bad_gateway", headers=_DO_NOT_RETRY)
    if isinstance(error, Refusal):
        return _refused(error, names)
    if isinstance(error, ServerUnavailable):
        if error.status == "RESOURCE_EXHAUSTED":
            return ApiError(429, str(error), code="rate_limit_exceeded", headers=_RETRY_SOON)
        if error.unreached:
            return ApiError(502, str(error), code="bad_gateway", headers=_RETRY_SOON)
        return ApiError(503, str(error), code="service_unavailable", headers=_RETRY_SOON)
    if isinstance(error, DeadlineExceeded):
        return ApiError(408, str(error), code="timeout", headers=_DO_NOT_RETRY)
    return ApiError(500, str(error), code="internal_error", headers=_DO_NOT_RETRY)


def _refused(error: Refusal, names: Mapping[str, str]) -> ApiError:
    if error.status == "NOT_FOUND":
        return ApiError(503, str(error), code="service_unavailable", headers=_RETRY_SOON)
    renamed = {**_RENAMED, **names}
    message = re.sub(rf"\b({'|'.join(renamed)})\b", lambda match: renamed[match[0]], str(error))
    field, place = re.fullmatch(r"(\w*)(.*)", error.field, re.DOTALL).groups()  # type: ignore[union-attr]
    param = names.get(field, _FIELDS.get(field, field)) + place
    return ApiError(413 if error.code == "too_large" else 400, message, code=error.code or None, param=param or None)
