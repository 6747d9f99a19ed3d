"""The keys of those who may call, by name, as a file has them; only their digests are kept."""

from __future__ import annotations

from pathlib import Path

from nemotron_client.callers import Callers, SecretFileError
from nemotron_gateway.errors import SettingError


class Keys:
    """The keys in *file*, which `read_again` reads again; without one everybody may call.

    Raises `SettingError` where the file cannot be used.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._callers = _read(file) if file else None

    def __str__(self) -> str:
        """Who may call, as a person reads it."""
        return "no key needed" if self._callers is None else f"keys of {self._callers}"

    def read_again(self) -> str:
        """Take over what the file holds now, and say whom it names; `SettingError` leaves all as it was."""
        if not self._file:
            return "there is no file of keys"
        self._callers = _read(self._file)
        return f"read: {self}"

    def name_of(self, authorization: str, key: str) -> str | None:
        """Whose key is in the headers Authorization and x-api-key; None for nobody's, empty where none is needed."""
        if self._callers is None:
            return ""
        scheme, _, token = authorization.partition(" ")
        caller = self._callers.of(token.strip() if scheme.lower() == "bearer" else key)
        return caller.name if caller else None


def _read(file: Path) -> Callers:
    try:
        return Callers.read(file)
    except SecretFileError as error:
        raise SettingError(str(error)) from error
