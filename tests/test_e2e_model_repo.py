"""`model_repo/` as a Triton user finds it: with a bundle named in the environment a plain tritonserver serves it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from nemotron_client import Client
from nemotron_triton.bundle import Bundle
from plain_tritonserver import plain_tritonserver

HELLO = [{"role": "user", "content": "What is the capital of France?"}]
MODELS = ("nemotron", "preprocessing", "postprocessing")


def test_a_checkout_serves_the_bundle_that_the_environment_names(bundle: Bundle, tmp_path: Path) -> None:
    """From the root of the checkout, whose folders `build` and `triton` must not pose as packages."""
    variables = {"NEMOTRON_BUNDLE": os.path.relpath(bundle.path, ROOT)}
    with plain_tritonserver("model_repo", tmp_path, cwd=ROOT, variables=variables) as server:
        server.wait_ready()
        # With Triton's own flags, which allow a ping of HTTP/2 each 300 s, it may be looked at as often as one likes.
        with Client(server.url, timeout_s=60, keepalive_s=0.05, max_retries=0) as client:
            reply = client.chat(HELLO, thinking=False, temperature=0.0)
            tokens = client.count_tokens(HELLO, thinking=False)
            models = [model.name for model in client.models()]
            long = client.chat(HELLO, thinking=False, end_id=-1, max_tokens=600)

    assert "Paris" in str(reply.content)
    assert tokens == reply.usage.input_tokens
    assert sorted(models) == sorted(MODELS)
    assert long.usage.output_tokens == 600


def test_without_a_bundle_each_model_says_in_one_line_what_is_missing(tmp_path: Path) -> None:
    with plain_tritonserver(ROOT / "model_repo", tmp_path, cwd=tmp_path) as server:
        status = server.process.wait(timeout=60)

    assert status == 1
    assert {reason_of(server.log, model) for model in MODELS} == {
        "this model repository holds no bundle, and NEMOTRON_BUNDLE names none; "
        "set NEMOTRON_BUNDLE to a bundle's folder, or write a repository with `nemotron model-repo`"
    }


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ("missing", "no bundle at BUNDLE: it has no manifest.json; make one with `nemotron build-engine`"),
        ("unfinished", "the bundle BUNDLE is unfinished"),
        ("changed", "BUNDLE/tokenizer/tokenizer.json was changed after the build"),
    ],
)
def test_a_wrong_bundle_is_one_line(bundle: Bundle, tmp_path: Path, wrong: str, complaint: str) -> None:
    named = tmp_path / "José Müller" / "büñdle"
    named.parent.mkdir()
    if wrong != "missing":
        shutil.copytree(bundle.path, named)
    if wrong == "unfinished":
        manifest = json.loads((named / "manifest.json").read_text())
        (named / "manifest.json").write_text(json.dumps(manifest | {"state": "unfinished", "next_stage": "compile"}))
    if wrong == "changed":
        (named / "tokenizer" / "tokenizer.json").write_text("{}")
    one_model = ("--model-control-mode=explicit", "--load-model=nemotron")
    variables = {"NEMOTRON_BUNDLE": str(named)}

    with plain_tritonserver(ROOT / "model_repo", tmp_path, *one_model, cwd=tmp_path, variables=variables) as server:
        status = server.process.wait(timeout=60)

    assert status == 1
    assert complaint.replace("BUNDLE", str(named)) in reason_of(server.log, "nemotron")


def test_a_model_sees_no_package_in_the_folder_where_tritonserver_was_started() -> None:
    code = """
import importlib.util, sys, types
from nemotron_triton.serving.stub import prepare_stub
assert sys.path[0] == ""
prepare_stub(types.ModuleType("triton_python_backend_utils"))
print([name for name in ("build", "triton") if importlib.util.find_spec(name)])
"""

    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert result.stdout == "[]\n"


def reason_of(log: Path, model: str) -> str:
    """The line of *log* that says why *model* was not loaded."""
    match = re.search(rf"failed to load '{model}' version 1: Internal: TritonModelException: (.*?)\\n", log.read_text())
    assert match, log.read_text()[-2000:]
    return match[1]
