"""Problems that a verification finds, in words, and the error that lists them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nemotron_build.errors import VerificationError


def differences(values: Mapping[str, Any], expected: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Every one of *values* that is not as *expected*; *where* comes before its name."""
    for name, value in expected.items():
        if values.get(name) != value:
            yield f"{where}{name} {values.get(name)!r} instead of {value!r}"


def refuse(problems: Sequence[str], summary: str) -> None:
    """`VerificationError` with *summary* and the first five of *problems*, if there are any."""
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise VerificationError(f"{summary}: {'; '.join(problems[:5])}{more}")
