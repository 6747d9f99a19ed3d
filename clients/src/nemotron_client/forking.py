"""What becomes of objects in a forked child, as of a server that loads an application and forks then."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class _Forked(Protocol):
    def after_fork(self) -> None:
        """This process is a forked child."""


_kept: weakref.WeakSet[_Forked] = weakref.WeakSet()


def tell_after_fork(kept: _Forked) -> None:
    """Call its `after_fork` in each child that is forked while *kept* exists."""
    _kept.add(kept)


def _in_child() -> None:
    for kept in list(_kept):
        kept.after_fork()


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
