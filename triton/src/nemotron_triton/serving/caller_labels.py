"""The values of the label `caller`: few, although a gateway may have any number of callers of its own."""

from __future__ import annotations

# Of the callers of all gateways; the file of secrets bounds the others.
_MAX_BEHIND_GATEWAYS = 256
_OTHER = "other"


class CallerLabels:
    """Gives the first 256 callers of gateways their names, and later ones `other`, behind the gateway's name."""

    def __init__(self) -> None:
        self._behind: set[str] = set()

    def label(self, caller: str) -> str:
        """The value that stands for *caller*, a name as the log has it."""
        gateway, slash, _ = caller.partition("/")
        if not slash or caller in self._behind:
            return caller
        if len(self._behind) == _MAX_BEHIND_GATEWAYS:
            return f"{gateway}/{_OTHER}"
        self._behind.add(caller)
        return caller
