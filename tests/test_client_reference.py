"""The reference of the client has the current docstring of every name that it exports."""

from __future__ import annotations

import subprocess
import sys

import nemotron_client
from conftest import ROOT

REFERENCE = ROOT / "docs" / "client-reference.md"


def test_the_committed_reference_is_current() -> None:
    command = [sys.executable, str(ROOT / "ci" / "reference.py")]

    written = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert REFERENCE.read_text() == written, "run ci/reference"


def test_every_exported_name_has_its_section() -> None:
    headings = [line for line in REFERENCE.read_text().splitlines() if line.startswith("### ")]

    assert sorted(headings) == sorted(f"### `{name}`" for name in nemotron_client.__all__)


def test_everything_public_has_a_docstring() -> None:
    exported = {name: getattr(nemotron_client, name) for name in nemotron_client.__all__}
    classes = {name: value for name, value in exported.items() if isinstance(value, type)}
    docstrings = {name: vars(cls)["__doc__"] for name, cls in classes.items()}
    for name, cls in classes.items():
        members = {f"{name}.{member}": value for member, value in vars(cls).items() if not member.startswith("_")}
        docstrings |= {place: value.__doc__ for place, value in members.items() if hasattr(value, "__get__")}

    # Where there is none, dataclasses write down their parameters.
    lacking = [name for name, text in docstrings.items() if not text or text.startswith(f"{name}(")]

    assert len(docstrings) > len(classes) > 30
    assert lacking == []
