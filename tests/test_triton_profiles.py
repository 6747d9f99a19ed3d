"""Model profiles are found by each of their names, and refused in one line when a file is wrong."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

import nemotron_triton
from nemotron_triton.chat import profiles
from nemotron_triton.chat.formats import format_names
from nemotron_triton.chat.profiles import DEFAULT_PROFILE, TEMPLATES, profile, profile_names, read_profile
from nemotron_triton.chat.reasoning import FORMATS
from nemotron_triton.errors import ProfileError

PROMPT_FORMATS = [path.stem for path in TEMPLATES.iterdir()]
FOLDER = Path(profiles.__file__).parent / "models"
DEFAULT = (FOLDER / f"{DEFAULT_PROFILE}.yaml").read_text(encoding="utf-8")


def one_of(names: Iterable[str]) -> str:
    """The names as pydantic lists what may stand in a place."""
    *others, last = map(repr, sorted(names))
    return f"{', '.join(others)} or {last}"


def refusal(path: Path, text: str) -> str:
    """The error of a profile with *text*."""
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError) as caught:
        read_profile(path)
    match = re.fullmatch(
        rf"{re.escape(str(path))} is not a model profile: (.*); correct it, or remove it", str(caught.value)
    )
    assert match
    return match[1]


@pytest.mark.parametrize("name", profile_names())
def test_a_profile_is_found_by_its_name_its_repository_and_its_aliases(name: str) -> None:
    known = profile(name)

    assert known == read_profile(FOLDER / f"{name}.yaml")
    assert all(profile(alias.upper()) is known for alias in (name, known.repository, *known.aliases))


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        (
            "thinking",
            {"control": "system_promt", "default": None},
            "thinking.control is \"system_promt\"; it should be 'system_prompt' or 'enable_thinking'",
        ),
        (
            "tool_call_format",
            "hermes",
            f'tool_call_format is "hermes"; it should be {one_of(format_names())}',
        ),
        (
            "reasoning_format",
            "brackets",
            f'reasoning_format is "brackets"; it should be {one_of(FORMATS)}',
        ),
        (
            "prompt_format",
            "chatml",
            f'prompt_format is "chatml"; it should be {one_of(PROMPT_FORMATS)}',
        ),
        ("context_tokens", "131072", 'context_tokens is "131072"; it should be a valid integer'),
        ("context_tokens", True, "context_tokens is true; it should be a valid integer"),
        ("aliases", "Nano", 'aliases is "Nano"; it should be a valid array'),
        ("end_tokens", [1], "end_tokens.0 is 1; it should be a valid string"),
        ("control_tokens", {"<s>": "1"}, 'control_tokens.<s> is "1"; it should be a valid integer'),
        ("thinking", {"control": "system_prompt"}, "thinking.default is missing"),
        ("name", "nano", "name is its file's name, and not a key"),
        (
            "aliasses",
            [],
            "aliasses is not known (known: aliases, architecture, context_tokens, control_tokens, end_tokens, "
            "prompt_format, reasoning_format, repository, sampling, template_options, template_settings, thinking, "
            "tool_call_format)",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_and_what_may_stand_there(
    tmp_path: Path, key: str, value: Any, complaint: str
) -> None:
    text = yaml.safe_dump(yaml.safe_load(DEFAULT) | {key: value})

    assert refusal(tmp_path / "copy.yaml", text) == complaint


@pytest.mark.parametrize(
    ("written", "instead", "complaint"),
    [
        ("context_tokens:", "context_tokenz:", "context_tokens is missing, and context_tokenz is not known (known: "),
        ("  default:", "  defualt:", "thinking.default is missing, and thinking.defualt is not known"),
        (
            "  thinking_off:",
            "  thinkin_off:",
            "sampling.thinking_off is missing, and sampling.thinkin_off is not known",
        ),
        ("  thinking_off:", "  tool_calling:", "sampling.thinking_off is missing"),
        ("top_p: 0.95", "top_p: most", 'sampling.thinking_on.top_p is "most"; it should be a valid number'),
        ("max_tokens: 32768", "max_tokens: 2024-01-01", 'sampling.thinking_on.max_tokens is "2024-01-01"; it '),
        ("repository: ", "repository: [", "expected ',' or ']'"),
        ("context_tokens:", "2024-01-01:", "keys must be str"),
        ("context_tokens:", '"a\\nb":', "context_tokens is missing, and a b is not known"),
        (DEFAULT, "", "it holds no keys"),
        (DEFAULT, "- nano\n", "it holds no keys"),
    ],
)
def test_a_misspelt_file_is_refused_with_the_key_that_is_wrong(
    tmp_path: Path, written: str, instead: str, complaint: str
) -> None:
    assert complaint in refusal(tmp_path / "copy.yaml", DEFAULT.replace(written, instead))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "copy.yaml").write_bytes(b"\xff\xfe")

    with pytest.raises(ProfileError, match=r"copy\.yaml is not a model profile: 'utf-8' codec"):
        read_profile(tmp_path / "copy.yaml")


@pytest.mark.parametrize(
    "arguments", [("render", "hi"), ("models",), ("parse", "/dev/null")], ids=["render", "models", "parse"]
)
def test_a_broken_profile_beside_the_others_is_one_line_that_names_its_file(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    shutil.copytree(Path(nemotron_triton.__file__).parent, tmp_path / "nemotron_triton")
    broken = tmp_path / "nemotron_triton/chat/models/copy.yaml"
    broken.write_text(DEFAULT.replace("context_tokens:", "context_tokenz:"), encoding="utf-8")

    ran = subprocess.run(
        [sys.executable, "-m", "nemotron_cli", *arguments],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.returncode, ran.stdout) == (1, "")
    assert re.fullmatch(rf"Error: {re.escape(str(broken))} is not .*: context_tokens is missing, .*\n", ran.stderr)
