"""What a look at a machine came to: checks, each with the tasks (build or serve, by engine kind) that need it.

A check that fails may keep some tasks from being done; one that keeps none is advice.
"""

from __future__ import annotations

from dataclasses import dataclass

from nemotron_build.kinds import KIND_NAMES
from nemotron_build.needs import Verb

# What is done, and the name of the engine kind.
Task = tuple[Verb, str]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing of the machine: what is there, which tasks need it, and which of them it `fails`, with the fix."""

    name: str
    detail: str
    remedy: str | None = None
    needed: frozenset[Task] = frozenset()
    fails: frozenset[Task] = frozenset()

    @property
    def ok(self) -> bool:
        """Whether nothing is to be done about it."""
        return self.remedy is None


@dataclass(frozen=True)
class Diagnosis:
    """All that was looked at."""

    checks: tuple[Check, ...]

    def missing(self, verb: Verb, kind: str) -> list[str]:
        """The names of the checks that keep engines of *kind* from being built, or served, here."""
        return [check.name for check in self.checks if (verb, kind) in check.fails]

    @property
    def ok(self) -> bool:
        """Whether engines of at least one kind can be built and served here."""
        return any(not self.missing("build", kind) and not self.missing("serve", kind) for kind in KIND_NAMES)


def check(
    name: str, detail: str, remedy: str | None, *, needed: frozenset[Task], fails: frozenset[Task] | None = None
) -> Check:
    """A check that fails all tasks that need it when it has a remedy, or those in *fails*."""
    if fails is None:
        fails = needed if remedy else frozenset()
    return Check(name=name, detail=detail, remedy=remedy, needed=needed, fails=fails)


def tasks(*verbs: Verb) -> frozenset[Task]:
    """*verbs* for every kind."""
    return frozenset((verb, kind) for verb in verbs for kind in KIND_NAMES)
