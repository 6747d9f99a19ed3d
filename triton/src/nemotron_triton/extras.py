"""The extras of the distribution, for those who lack one."""

from __future__ import annotations


def how_to_install(extra: str) -> str:
    """What to do where a package of *extra* is missing: the distribution is on no registry, so from its source."""
    return f"pip install '.[{extra}]' from a checkout of nemotron"
