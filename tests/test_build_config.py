"""Settings come from flags and from one file; an unknown one is refused with the nearest known one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nemotron_cli import main


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["build-engine", *arguments])


# What is wrong with the file; all other complaints are about a setting.
UNREADABLE = ("is not YAML", "must hold settings", "is given twice", "No such file")


@pytest.fixture
def config(tmp_path: Path, checkpoint: Path) -> Path:
    (tmp_path / "checkpoint").symlink_to(checkpoint)
    file = tmp_path / "build.yaml"
    file.write_text("checkpoint: checkpoint\ngpu: cpu\nprecision: fp16\nmax_seq_len: 512\nmax_batch_size: 2\n")
    return file


def test_everything_can_come_from_the_file(tmp_path: Path, config: Path) -> None:
    result = run("--config", str(config), "--output", str(tmp_path / "bundle"), "--json")

    manifest = json.loads(result.stdout)
    assert (manifest["precision"], manifest["max_seq_len"], manifest["max_batch_size"]) == ("fp16", 512, 2)
    assert manifest["config"]["checkpoint"] == str(tmp_path / "checkpoint")


def test_flags_win_over_the_file(tmp_path: Path, config: Path) -> None:
    result = run("--config", str(config), "--precision", "bf16", "--output", str(tmp_path / "b"), "--dry-run", "--json")

    plan = json.loads(result.stdout)["config"]
    assert (plan["precision"], plan["max_seq_len"]) == ("bf16", 512)
    assert sorted(os.listdir(tmp_path)) == ["build.yaml", "checkpoint"]


def test_the_resolved_configuration_is_itself_a_configuration(tmp_path: Path, config: Path) -> None:
    output = str(tmp_path / "bundle")
    first = json.loads(run("--config", str(config), "--output", output, "--dry-run", "--json").stdout)
    config.write_text(json.dumps(first["config"]))

    second = json.loads(run("--config", str(config), "--output", output, "--dry-run", "--json").stdout)

    assert second["config"] == first["config"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("precison: fp8", "no setting is called 'precison'; did you mean precision? known: checkpoint, gpu"),
        ("xyzzy: 1", "no setting is called 'xyzzy'; known: checkpoint"),
        ("max_seq_len: long", "--max-seq-len: "),
        ("max_batch_size: 0", "--max-batch-size is 0; at least 1 is needed"),
        ("device: tpu", "--device tpu does not exist; known: auto, cpu, cuda"),
        ("precision: [fp8]", "--precision: "),
        ("gpu:", "--gpu: "),
        ("- a list", "must hold settings as `name: value`"),
        ("a: b: c", "is not YAML: "),
        ("!!python/object/apply:os.system ['true']", "is not YAML: "),
        ("\x00", "is not YAML: "),
    ],
)
def test_a_wrong_configuration_is_one_line(tmp_path: Path, config: Path, text: str, complaint: str) -> None:
    settings = "" if text[0] in "-!a\x00" else "checkpoint: checkpoint\n" + ("" if text == "gpu:" else "gpu: cpu\n")
    config.write_text(f"{settings}{text}\n")

    result = run("--config", str(config), "--output", str(tmp_path / "bundle"))

    assert (result.exit_code, result.stdout) == (1 if any(map(complaint.__contains__, UNREADABLE)) else 2, "")
    assert complaint in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_configuration_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    result = run("--config", str(tmp_path / "none.yaml"), "--output", str(tmp_path / "bundle"))

    assert result.exit_code == 1
    assert result.stderr == f"Error: cannot read {tmp_path / 'none.yaml'}: No such file or directory\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--gpu", "cpu", "--output", "x"], "CHECKPOINT is missing"),
        (["checkpoint", "--output", "x"], "--gpu is missing"),
        (["checkpoint", "--gpu", "cpu"], "--output is missing"),
        (["checkpoint", "--gpu", "cpu", "--output", "x", "--resume", "y"], "--resume takes everything from the bundle"),
        (["--resume", "nowhere/at-all"], "nowhere/at-all: it has no manifest.json"),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)

    result = run(*arguments)

    assert result.exit_code in (1, 2)
    assert complaint in result.stderr
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("max_seq_len: 64\nmax_seq_len: 128", "max_seq_len is given twice"),
        ("max_seq_len: 2024-13-45", "is not YAML: month must be in 1..12"),
        ("max_seq_len: " + "9" * 5000, "is not YAML: "),
        ("max_batch_size: yes", "--max-batch-size: "),
        ("max_batch_size: 10000000000", "--max-batch-size is 10000000000; at most 1000000 make sense"),
        ("calibration: ~nosuchuser/x", "calibration: Could not determine home directory"),
        ('chat_template: "a\\0b"', "which is no path"),
        ("calibration: nowhere.jsonl", "nowhere.jsonl: No such file or directory"),
    ],
)
def test_odd_values_are_one_line_before_anything_is_read(
    tmp_path: Path, config: Path, text: str, complaint: str
) -> None:
    config.write_text(f"checkpoint: checkpoint\ngpu: cpu\n{text}\n")

    result = run("--config", str(config), "--output", str(tmp_path / "bundle"), "--dry-run")

    assert (result.exit_code, result.stdout) == (1 if any(map(complaint.__contains__, UNREADABLE)) else 2, "")
    assert complaint in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_value_that_grows_when_it_is_printed_is_cut(tmp_path: Path, config: Path) -> None:
    bomb = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    bomb += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    lines = "\n  ".join(bomb)
    config.write_text(f"checkpoint: checkpoint\ngpu: cpu\nmax_seq_len:\n  {lines}\n")

    result = run("--config", str(config), "--output", str(tmp_path / "bundle"), "--dry-run")

    assert result.exit_code == 2
    assert len(result.stderr) < 1000
