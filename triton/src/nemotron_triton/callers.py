"""Who may call the server: the callers of a file of secrets, or of the one secret that the environment names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nemotron_client import callers
from nemotron_client.callers import DEFAULT_CALLER, MAX_CALLERS, Caller, SecretFileError
from nemotron_triton.errors import ServerError

__all__ = ["DEFAULT_CALLER", "MAX_CALLERS", "Caller", "Callers", "caller_file", "private_text", "read_callers"]

SECRET_VARIABLE = "NEMOTRON_SECRET"  # noqa: S105 - the name of the variable
FILE_VARIABLE = "NEMOTRON_SECRET_FILE"


@dataclass(frozen=True)
class Callers(callers.Callers):
    """The callers of a server; its files raise `ServerError`."""

    @classmethod
    def parse(cls, text: str, source: str) -> Callers:
        """The callers in the *text* of a file; `ServerError` names the line of *source* that cannot be used."""
        with _as_server_error():
            return cls(callers.Callers.parse(text, source).by_digest)

    @classmethod
    def read(cls, file: Path) -> Callers:
        """The callers in *file*; `ServerError` where it cannot be used, or every user of the machine can read it."""
        return cls.parse(private_text(file), str(file))

    @classmethod
    def of_one(cls, secret: str, source: str) -> Callers:
        """The caller `default` with *secret*; `ServerError` where it cannot be one."""
        with _as_server_error():
            return cls(callers.Callers.of_one(secret, source).by_digest)

    def with_gateway(self, name: str, secret: str) -> Callers:
        """These, and a gateway; `ServerError` where one of them has its *name*, or there are too many."""
        if name in {caller.name for caller in self.by_digest.values()}:
            raise ServerError(f"a caller is named {name}, as the gateway of this server is", "give it another name")
        if len(self) >= MAX_CALLERS:
            raise ServerError(f"there are {len(self)} callers and a gateway; at most {MAX_CALLERS} can be told apart")
        (digest,) = self.of_one(secret, "a gateway").by_digest
        return Callers({**self.by_digest, digest: Caller(name, is_gateway=True)})


def read_callers(file: Path | None, environment: Mapping[str, str] = os.environ) -> Callers | None:
    """The callers in *file*, else in the file or of the one secret that the environment names; None without any.

    Raises `ServerError` where they cannot be used.
    """
    if file := file or caller_file(environment):
        return Callers.read(file)
    secret = environment.get(SECRET_VARIABLE)
    if secret == "":
        # Whoever sets it does not mean to serve everybody.
        raise ServerError(f"{SECRET_VARIABLE} is set but empty", "give it the secret, or unset it to serve without")
    return None if secret is None else Callers.of_one(secret, SECRET_VARIABLE)


def caller_file(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The file of secrets that the environment names; `ServerError` where the name is empty."""
    name = environment.get(FILE_VARIABLE)
    if name == "":
        raise ServerError(f"{FILE_VARIABLE} is set but empty", "give it the file, or unset it to serve without secrets")
    return Path(name) if name else None


def private_text(file: Path) -> str:
    """The text of a *file* with secrets; `ServerError` where it cannot be read, or every user of the machine can."""
    with _as_server_error():
        return callers.private_text(file)


@contextlib.contextmanager
def _as_server_error() -> Iterator[None]:
    try:
        yield
    except SecretFileError as error:
        raise ServerError(error.detail, error.remedy) from error
