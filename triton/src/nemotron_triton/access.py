"""The shared secret of callers, and the categories of calls that are closed to them.

tritonserver compares one header per category with a value. Health is open to everybody. Shared memory, tracing and
log settings are closed by a value that is thrown away, and so is model control unless `nemotron serve` reloads, which
then alone knows the value.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nemotron_client import wire
from nemotron_triton.errors import ServerError
from nemotron_triton.hidden_arguments import HiddenArgument

SECRET_VARIABLE = "NEMOTRON_SECRET"  # noqa: S105 - the name of the variable
CONTROL_HEADER = "nemotron-control"
_CLOSED_HEADER = "nemotron-closed"
_FOR_CALLERS = ("inference", "metadata", "model-config", "statistics")
_FOR_NOBODY = ("shared-memory", "trace", "logging")
_CONTROL = "model-repository"
_SHORTEST, _LONGEST = 16, 1024


@dataclass(frozen=True, kw_only=True)
class Access:
    """The values that calls must send: without `secret` everybody may call, without `control` nobody loads models."""

    secret: str | None = field(default=None, repr=False)
    control: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse a secret that no header can carry, or that can be guessed."""
        if self.secret is not None and not re.fullmatch(rf"[!-~]{{{_SHORTEST},{_LONGEST}}}", self.secret):
            raise ServerError(
                f"the secret is not {_SHORTEST} to {_LONGEST} visible ASCII characters",
                "`openssl rand -hex 32` makes one",
            )

    def arguments(self) -> list[HiddenArgument]:
        """The arguments of tritonserver that close all categories that are not open."""
        rules = [(_FOR_NOBODY, _CLOSED_HEADER, new_value()), ((_CONTROL,), CONTROL_HEADER, self.control or new_value())]
        if self.secret is not None:
            rules.append((_FOR_CALLERS, wire.SECRET_HEADER, self.secret))
        return [
            HiddenArgument(f"--{flag}={','.join(categories)}:{header}=", value)
            for categories, header, value in rules
            for flag in ("grpc-restricted-protocol", "http-restricted-api")
        ]


def new_value() -> str:
    """A value that cannot be guessed."""
    return secrets.token_hex(32)


def check_private(file: Path) -> None:
    """Raise `ServerError` for a folder, and for what other users can read; `OSError` where *file* is not there.

    On a read-only mount its mode is left to whoever mounted it, and no chmod can change it: Kubernetes' Secret volumes
    are 0644 and Docker's secrets 0444, for containers that have no other users.
    """
    mode = file.stat().st_mode
    if stat.S_ISDIR(mode):
        raise ServerError(f"{file} is a folder", "give the file in it that holds the secret")
    if mode & stat.S_IRWXO and not os.statvfs(file).f_flag & os.ST_RDONLY:
        raise ServerError(f"{file} can be read by every user of this machine", f"chmod 600 {shlex.quote(str(file))}")


def read_secret(file: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The secret in *file*, else in the environment, if there is one; `ServerError` when it cannot be used."""
    if file is None:
        secret = environment.get(SECRET_VARIABLE)
        if secret == "":
            # Whoever sets it does not mean to serve everybody.
            raise ServerError(f"{SECRET_VARIABLE} is set but empty", "give it the secret, or unset it to serve without")
        return secret
    try:
        check_private(file)
        return file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ServerError(f"cannot read the secret in {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ServerError(f"the secret in {file} is not ASCII text", "`openssl rand -hex 32` makes one") from error
