"""Who may call, as a file of secrets names them, and the one whose a secret is. For a server, and for a gateway.

A line of the file is `name: secret`, or `gateway name: secret` where that caller may say for whom it asks. A file with
one secret and nothing else is of the caller `default`. `sha256:` and 64 hexadecimal digits stand for a secret by its
digest, so that nobody who reads the file can call. Empty lines and lines that begin with `#` are left out.

A secret is found by its SHA-256 digest: what the time of a search might tell is about the digest of the guess, which
nobody can steer towards the digest of a secret.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MAX_CALLERS = 256
DEFAULT_CALLER = "default"
_SHORTEST, _LONGEST = 16, 1024
_SECRET = re.compile(rf"[!-~]{{{_SHORTEST},{_LONGEST}}}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_LINE = re.compile(r"(?P<gateway>gateway\s+)?(?P<name>[A-Za-z0-9_.-]{1,64}):\s+(?P<secret>\S+)")
_HOW = "`openssl rand -hex 32` makes one"


class SecretFileError(Exception):
    """A file of secrets cannot be used: *detail* is what is wrong, *remedy* what to do."""

    def __init__(self, detail: str, remedy: str = "") -> None:
        self.detail = detail
        self.remedy = remedy
        super().__init__(f"{detail}; {remedy}" if remedy else detail)


@dataclass(frozen=True)
class Caller:
    """One who may call; a gateway may say for whom it asks."""

    name: str
    is_gateway: bool = False


@dataclass(frozen=True)
class Callers:
    """Every caller by the SHA-256 digest of its secret, in hexadecimal digits; no secret is kept."""

    by_digest: Mapping[str, Caller] = field(repr=False)

    @classmethod
    def parse(cls, text: str, source: str) -> Callers:
        """The callers in the *text* of a file; `SecretFileError` names the line of *source* that cannot be used."""
        lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
        lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
        if not lines:
            raise SecretFileError(f"{source} holds no secret", _HOW)
        if len(lines) > MAX_CALLERS:
            raise SecretFileError(f"{source} names {len(lines)} callers; at most {MAX_CALLERS} can be told apart")
        if len(lines) == 1 and not re.search(r"\s", lines[0][1]):
            return cls.of_one(lines[0][1], source)
        by_digest: dict[str, Caller] = {}
        for number, line in lines:
            where = f"line {number} of {source}"
            match = _LINE.fullmatch(line)
            if not match:
                # The line itself is not shown: it may hold a secret.
                raise SecretFileError(
                    f"{where} is no `name: secret`",
                    "a name has up to 64 letters, digits, dots, dashes and underscores; behind the colon is a space",
                )
            caller = Caller(match["name"], is_gateway=bool(match["gateway"]))
            digest = _digest(match["secret"], where)
            if digest in by_digest:
                raise SecretFileError(f"{where} has the secret of {by_digest[digest].name} again", _HOW)
            if caller.name in {known.name for known in by_digest.values()}:
                raise SecretFileError(f"{where} names {caller.name} again", "give each caller one line")
            by_digest[digest] = caller
        return cls(by_digest)

    @classmethod
    def of_one(cls, secret: str, source: str) -> Callers:
        """The caller `default` with *secret*; `SecretFileError` where it cannot be one."""
        return cls({_digest(secret, source): Caller(DEFAULT_CALLER)})

    @classmethod
    def read(cls, file: Path) -> Callers:
        """The callers in *file*; `SecretFileError` where it cannot be used, or all users of the machine can read it."""
        return cls.parse(private_text(file), str(file))

    def __len__(self) -> int:
        """How many there are."""
        return len(self.by_digest)

    def __str__(self) -> str:
        """Their names, as a person reads them."""
        return ", ".join(caller.name for caller in self.by_digest.values())

    def text(self) -> str:
        """What `parse` reads, with digests in place of secrets."""
        return "".join(
            f"{'gateway ' if caller.is_gateway else ''}{caller.name}: sha256:{digest}\n"
            for digest, caller in self.by_digest.items()
        )

    def of(self, secret: str) -> Caller | None:
        """The caller that has *secret*."""
        return self.by_digest.get(_sha256(secret))


def private_text(file: Path) -> str:
    """The text of a *file* with secrets; `SecretFileError` where it cannot be read, or all users of the machine can."""
    try:
        _check_private(file)
        return file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise SecretFileError(f"cannot read the secret in {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SecretFileError(f"the secret in {file} is not ASCII text", _HOW) from error


def _check_private(file: Path) -> None:
    """Raise `SecretFileError` for a folder, and for what other users can read; `OSError` where *file* is not there.

    On a read-only mount its mode is left to whoever mounted it, and no chmod can change it: Kubernetes' Secret volumes
    are 0644 and Docker's secrets 0444, for containers that have no other users.
    """
    mode = file.stat().st_mode
    if stat.S_ISDIR(mode):
        raise SecretFileError(f"{file} is a folder", "give the file in it that holds the secret")
    if mode & stat.S_IRWXO and not os.statvfs(file).f_flag & os.ST_RDONLY:
        raise SecretFileError(
            f"{file} can be read by every user of this machine", f"chmod 600 {shlex.quote(str(file))}"
        )


def _digest(secret: str, where: str) -> str:
    """The digest of *secret*; `SecretFileError` for one that no header can carry, or that can be guessed."""
    if match := _DIGEST.fullmatch(secret):
        return match[1]
    if not _SECRET.fullmatch(secret):
        raise SecretFileError(f"the secret in {where} is not {_SHORTEST} to {_LONGEST} visible ASCII characters", _HOW)
    return _sha256(secret)


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
