"""What commands print on narrow, dumb and colourless terminals and elsewhere, and what a shell completes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import pytest

from commands import invoke
from nemotron_build.kinds import KIND_NAMES
from nemotron_build.planning.gpus import gpu_names
from nemotron_cli import main
from nemotron_cli.chat.answer_view import show
from nemotron_client import ReasoningDelta
from nemotron_triton.chat.profiles import profile_names
from terminal import Terminal

NEMOTRON = (sys.executable, "-m", "nemotron_cli")


def shown(*words: str, columns: int, **environment: str) -> str:
    """What a command prints on a terminal."""
    # pytest-xdist sets this, which wins over the terminal's own width.
    inherited = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    with Terminal([*NEMOTRON, *words], {**inherited, "TERM": "xterm", **environment}, columns=columns) as terminal:
        return terminal.wait_for_end()[1]


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("words", [("gpus",), ("doctor",), ("plan", "--all-gpus")])
def test_a_table_fits_the_terminal(words: tuple[str, ...], columns: int) -> None:
    text = shown(*words, columns=columns, NO_COLOR="1").partition("\nwhat to do:")[0]

    assert max(map(len, text.splitlines())) <= columns
    assert "h100" in text if words != ("doctor",) else "can serve" in text
    assert "\x1b" not in text


def test_a_row_elsewhere_is_a_line_without_blanks_at_its_end() -> None:
    lines = invoke("gpus").stdout.splitlines()

    assert len(lines) == 1 + len(gpu_names())
    assert lines == [line.rstrip() for line in lines]


@pytest.mark.parametrize(("variables", "dims"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_thinking_is_dimmed_only_where_escapes_are_taken(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], dims: bool
) -> None:
    for name, value in ({"TERM": "xterm"} | variables).items():
        monkeypatch.setenv(name, value)
    if "NO_COLOR" not in variables:
        monkeypatch.delenv("NO_COLOR", raising=False)
    printed: list[str] = []
    monkeypatch.setattr(click, "echo", lambda text="", **_: printed.append(text))

    show([ReasoningDelta("hm")])

    assert ("\x1b" in "".join(printed)) == dims


@pytest.mark.parametrize(
    ("words", "known"),
    [
        ("plan --gpu", ["auto", *gpu_names()]),
        ("build-engine --gpu", ["auto", *gpu_names()]),
        ("build-engine --engine-kind", KIND_NAMES),
        ("render --model", profile_names()),
        ("quality --device", ["auto", "cpu", "cuda"]),
        ("plan --kv-precision", ["auto", "fp8"]),
        ("build-engine --precision", ["auto", "bf16", "nvfp4"]),
        ("chat --tool-choice", ["auto", "none", "required"]),
    ],
)
def test_a_shell_completes_what_an_option_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, known: list[str]
) -> None:
    completed = complete(monkeypatch, capsys, f"nemotron {words} ")

    assert set(known) <= set(completed)


def test_a_shell_completes_commands_and_several_precisions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complete(monkeypatch, capsys, "nemotron re") == ["reload", "render"]
    assert "bf16,fp8" in complete(monkeypatch, capsys, "nemotron quality x --precision bf16,fp")


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        (["serv"], 2, "there is no command 'serv'; did you mean serve?"),
        (["xyzzy"], 2, "there is no command 'xyzzy'; `nemotron --help` lists them"),
        (["reload"], 2, "Missing option '--pid-file'"),
        (["chat", "hi", "--max-tokens", "0"], 2, "0 is not in the range x>=1"),
        (["quality", "nowhere", "--device", "tpu"], 2, "'tpu' is not one of 'auto', 'cpu', 'cuda'"),
        (["quality", "nowhere", "--model", "gpt-2"], 2, "no model profile named 'gpt-2'"),
        (
            ["build-engine", "nvidia/4B", "--gpu", "cpu", "--output", "x"],
            1,
            "`hf download nvidia/4B --local-",
        ),
    ],
)
def test_a_wrong_word_is_one_line_with_what_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], status: int, complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)

    result = invoke(*words)

    assert result.exit_code == status
    assert complaint in result.stderr.splitlines()[-1]


def test_a_command_of_the_help_asks_what_it_says() -> None:
    """In a shell `$1` within double quotes is a variable."""
    assert "nemotron chat 'What is an 18% tip on $100?'" in invoke("--help").stdout


def test_what_is_printed_to_be_pasted_is_quoted(checkpoint: Path, tmp_path: Path) -> None:
    built = invoke("build-engine", checkpoint, "--gpu", "cpu", "--output", tmp_path / "my bundle").stdout
    written = invoke("model-repo", tmp_path / "my bundle", "--output", tmp_path / "my models").stdout

    assert f"serve it with: nemotron serve '{tmp_path}/my bundle'\n" in built
    assert f"serve it with: tritonserver --model-repository '{tmp_path}/my models'\n" in written


def complete(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
) -> list[str]:
    """What the shell would offer at the end of *line*."""
    monkeypatch.setenv("_NEMOTRON_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
    with pytest.raises(SystemExit):
        main(prog_name="nemotron")
    return [completion.partition(",")[2] for completion in capsys.readouterr().out.splitlines()]
