"""What the documents say of each engine kind is what its engine refuses."""

from __future__ import annotations

import subprocess
import sys

from conftest import ROOT

PAGE = ROOT / "docs" / "answers.md"


def test_the_committed_table_is_current() -> None:
    command = [sys.executable, str(ROOT / "ci" / "engines.py")]

    written = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert PAGE.read_text() == written, "run ci/engines"


def test_the_table_says_yes_and_no_and_why() -> None:
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = {row[0]: row[1:] for row in rows}

    assert cells["`temperature`"] == ["yes"] * 5
    assert cells["log probabilities"] == ["yes"] * 5
    assert cells["`no_repeat_ngram_size`"][-1].startswith("no (")
    assert cells["run on hardware"] == ["**no**"] * 4 + ["yes"]
