"""Stages in a row: each is skipped when it was done before, and the row ends where this machine cannot go on."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemotron_build.processes import Runner
from nemotron_build.reporter import Reporter
from nemotron_build.stages.workspace import Workspace, digests_of

# What another version of ours made may be made otherwise now.
VERSION = importlib.metadata.version("nemotron-triton")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a stage gets: its own empty folder, the outputs it needs, a log, and whom to report to."""

    folder: Path
    inputs: Mapping[str, Path]
    log: Path
    reporter: Reporter
    runner: Runner

    def record(self, name: str, value: Any) -> None:
        """Keep *value*, of JSON, for the manifest: `checks`, a line for each thing found right, or `quality`."""
        (self.folder / f"{name}.json").write_text(json.dumps(value, indent=1), encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A step of a build.

    `settings` is all that decides its output besides the outputs of the stages it `needs`: digests of inputs, choices,
    tool versions. `commands` are the programs it runs, as argv. `blocked` says why this machine cannot do it,
    `reads_source` that it reads the checkpoint's weights themselves.
    """

    name: str
    make: Callable[[Work], None]
    settings: Mapping[str, Any]
    needs: tuple[str, ...] = ()
    commands: tuple[Sequence[str], ...] = ()
    blocked: str | None = None
    reads_source: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How far a build came: the folder and key of every stage that is done, and what remains from a blocked one on."""

    folders: Mapping[str, Path]
    keys: Mapping[str, str]
    remaining: Sequence[Stage] = ()

    @property
    def blocked(self) -> str | None:
        """Why this machine cannot go on."""
        return self.remaining[0].blocked if self.remaining else None

    def recorded(self, stage: str, name: str) -> Any:
        """What *stage* recorded as *name*; None where it did not, or was not run."""
        folder = self.folders.get(stage)
        path = folder and folder / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path and path.is_file() else None


def key_of(*parts: Any) -> str:
    """The SHA-256 of *parts*, which are JSON values."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def run_stages(
    stages: Sequence[Stage], workspace: Workspace, *, reporter: Reporter, runner: Runner, given: Mapping[str, Path]
) -> Outcome:
    """Run *stages* in *workspace*, which is open; *given* are outputs that were made elsewhere, by stage."""
    folders, keys = dict(given), dict[str, str]()
    digests = {name: digests_of(folder) for name, folder in given.items()}
    for done, stage in enumerate(stages):
        key = key_of(VERSION, stage.name, stage.settings, {need: digests.get(need) for need in stage.needs})
        if workspace.has(stage.name, key):
            reporter.note(f"{stage.name}: done before")
        elif stage.blocked:
            return Outcome(folders=folders, keys=keys, remaining=stages[done:])
        else:
            reporter.stage(stage.name)
            with workspace.making(stage.name, key) as folder:
                inputs = {need: folders[need] for need in stage.needs}
                log = workspace.log(stage.name)
                stage.make(Work(folder=folder, inputs=inputs, log=log, reporter=reporter, runner=runner))
        folders[stage.name], keys[stage.name] = workspace.output(stage.name), key
        digests[stage.name] = workspace.digests(stage.name)
    return Outcome(folders=folders, keys=keys)
