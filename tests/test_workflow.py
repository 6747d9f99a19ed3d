"""The workflow for GitHub, which was never run: it follows the schema and agrees with the checkout."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

from conftest import ROOT
from nemotron_build.commands.versions import TRITON_IMAGE

PATH = ROOT / ".github/workflows/ci.yaml"
WORKFLOW = yaml.safe_load(PATH.read_text())


def test_it_is_a_workflow(tmp_path: Path) -> None:
    broken = tmp_path / "ci.yaml"
    broken.write_text(PATH.read_text().replace("runs-on:", "run-on:"))

    assert follows_the_schema(PATH)
    assert not follows_the_schema(broken)


def test_it_runs_what_the_checkout_s_own_run_does() -> None:
    ours = re.findall(r"^make .*", (ROOT / ".ci/run").read_text(), re.MULTILINE)

    assert [step["run"] for step in WORKFLOW["jobs"]["checks"]["steps"] if "run" in step] == ours


def test_it_runs_on_every_python_that_a_set_up_takes() -> None:
    (candidates,) = re.findall(r"^candidates=(.*)", (ROOT / "ci/setup").read_text(), re.MULTILINE)
    versions = re.findall(r"python(3\.\d+)", candidates)

    assert WORKFLOW["jobs"]["checks"]["strategy"]["matrix"]["python"] == versions[::-1]


def test_the_container_is_the_one_that_is_served_in() -> None:
    assert WORKFLOW["jobs"]["triton-container"]["container"]["image"] == TRITON_IMAGE


def test_it_says_that_it_was_not_run() -> None:
    assert "not run here" in PATH.read_text()


def follows_the_schema(path: Path) -> bool:
    """Whether the file is a workflow by the JSON schema of GitHub workflows."""
    tool = Path(sys.executable).with_name("check-jsonschema")
    argv = [str(tool), "--builtin-schema", "vendor.github-workflows", str(path)]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0
