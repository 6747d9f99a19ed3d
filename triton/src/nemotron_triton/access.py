"""The categories of calls that tritonserver itself closes, and the secret that a client sends.

tritonserver compares one header per category with a value. Shared memory, tracing and log settings are closed by a
value that is thrown away, and so is model control unless `nemotron serve` reloads, which then alone knows the value.
Where callers have secrets, configuration and statistics of models are closed too. Health, and the names and tensors of
the models (metadata), are open to everybody. Who may ask the models they check themselves: see `callers`.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nemotron_triton.callers import SECRET_VARIABLE, private_text
from nemotron_triton.errors import ServerError
from nemotron_triton.hidden_arguments import HiddenArgument

CONTROL_HEADER = "nemotron-control"
_CLOSED_HEADER = "nemotron-closed"
_FOR_NOBODY = ("shared-memory", "trace", "logging")
# They tell of the server and of others' requests, and tritonserver knows no caller that it could show them to.
_WITH_SECRETS = ("model-config", "statistics")
_CONTROL = "model-repository"


@dataclass(frozen=True, kw_only=True)
class Access:
    """What tritonserver closes: more where callers have secrets; without the value `control` nobody loads models."""

    has_secrets: bool = False
    control: str | None = field(default=None, repr=False)

    def arguments(self) -> list[HiddenArgument]:
        """The arguments of tritonserver that close all categories that are not open."""
        closed = (*_FOR_NOBODY, *(_WITH_SECRETS if self.has_secrets else ()))
        rules = [(closed, _CLOSED_HEADER, new_value()), ((_CONTROL,), CONTROL_HEADER, self.control or new_value())]
        return [
            HiddenArgument(f"--{flag}={','.join(categories)}:{header}=", value)
            for categories, header, value in rules
            for flag in ("grpc-restricted-protocol", "http-restricted-api")
        ]


def new_value() -> str:
    """A value that cannot be guessed."""
    return secrets.token_hex(32)


def read_secret(file: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The secret that a client sends: in *file*, else in the environment, if there is one.

    Raises `ServerError` where the file cannot be used.
    """
    if not file:
        return environment.get(SECRET_VARIABLE)
    secret = private_text(file)
    if re.search(r"\s", secret):
        raise ServerError(
            f"{file} holds more than a secret", "a client takes a file with its own secret and nothing else"
        )
    return secret
