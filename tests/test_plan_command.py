"""`nemotron plan` and `nemotron gpus`: what is printed, for people and for scripts, and the exit statuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nemotron_build.planning.gpus import gpu_names
from nemotron_build.precisions import PRECISION_NAMES
from nemotron_cli import main

KEYS = {
    "fits", "reason", "suggestion", "suggestions", "model", "gpu", "sm", "engine_kind", "precision", "kv_precision",
    "parameters", "weights_bytes", "kv_bytes_per_token", "state_bytes_per_sequence", "max_seq_len", "max_concurrency",
    "tokens_per_second_bound", "settings", "memory", "roofline", "warnings",
}  # fmt: skip


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--gpu", "h100"), 0),
        (("--gpu", "a10g", "--precision", "bf16", "--concurrency", "32", "--max-seq-len", "32768"), 3),
        (("--gpu", "a10g", "--precision", "fp8"), 4),
        (("--gpu", "thor", "--model", "nemotron-3-nano-4b", "--precision", "int4-awq"), 4),
        (("--gpu", "cpu", "--precision", "int4-wo"), 0),
    ],
)
def test_plan_answers_with_its_status_and_one_document(arguments: tuple[str, ...], status: int) -> None:
    people, script = run("plan", *arguments), run("plan", *arguments, "--json")

    document = json.loads(script.stdout)
    assert (people.exit_code, script.exit_code) == (status, status), people.output
    assert document.keys() >= KEYS
    assert document["fits"] == (status == 0)
    assert document["reason"]
    assert script.stderr == ""
    if status == 4:
        assert people.stdout == ""
        assert people.stderr.count("\n") == 1
        assert document["suggestion"] == document["suggestions"][0]["options"]
    elif status == 3:
        assert "would fit: --concurrency 2" in people.stdout
        assert {"--concurrency": "2"} in [suggestion["options"] for suggestion in document["suggestions"]]


def test_plan_reports_the_published_numbers() -> None:
    document = json.loads(run("plan", "--gpu", "h100", "--precision", "bf16", "--json").stdout)

    assert document["parameters"] == 4_512_746_496
    assert document["kv_bytes_per_token"] == 131_072
    assert document["weights_bytes"] == 9_025_492_992
    assert sum(document["memory"]["weights"].values()) == document["weights_bytes"]
    assert document["tokens_per_second_bound"] == pytest.approx(407, rel=0.02)
    assert (document["sm"], document["engine_kind"]) == (90, "tensorrt")


def test_plan_takes_a_checkpoint(checkpoint: Path) -> None:
    document = json.loads(
        run("plan", "--checkpoint", str(checkpoint), "--gpu", "cpu", "--max-seq-len", "2048", "--json").stdout
    )

    assert (document["model"], document["fits"]) == ("checkpoint", True)
    assert document["kv_bytes_per_token"] == 2 * 4 * 64 * 2


def test_plan_compares_all_gpus() -> None:
    people, script = run("plan", "--all-gpus"), run("plan", "--all-gpus", "--json")

    rows = json.loads(script.stdout)
    assert (people.exit_code, script.exit_code) == (0, 0)
    assert len(rows) == len(gpu_names()) * len(PRECISION_NAMES)
    assert {row["status"] for row in rows} == {"allowed", "warning", "refused"}
    assert all(row["suggestion"] for row in rows if row["status"] == "refused")
    assert all(name in people.stdout for name in gpu_names())
    assert "…" not in people.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--gpu", "h1000"), "did you mean h100?"),
        (("--gpu", "h100", "--precision", "fp3"), "--precision fp3 does not exist"),
        (("--gpu", "h100", "--model", "gpt-2"), "no model profile named 'gpt-2'"),
        (("--gpu", "h100", "--concurrency", "0"), "--concurrency is 0"),
        (("--gpu", "h100", "--max-seq-len", "200000"), "--max-seq-len is 200000; the model goes up to 131072"),
        (("--gpu", "cpu", "--checkpoint", "/nowhere"), "no checkpoint at /nowhere"),
    ],
)
def test_wrong_questions_are_one_line(arguments: tuple[str, ...], complaint: str) -> None:
    result = run("plan", *arguments)

    assert (result.exit_code, result.stdout) == (1 if "no checkpoint" in complaint else 2, "")
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1


def test_gpus_lists_the_catalogue() -> None:
    listed = json.loads(run("gpus", "--json").stdout)

    assert [gpu["name"] for gpu in listed] == gpu_names()
    assert all(name in run("gpus").stdout for name in gpu_names())
