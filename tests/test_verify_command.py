"""`nemotron verify` finds everything that is wrong with a bundle, and believes nothing that is in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from machines import H100, FakeNvml, install
from nemotron_cli import main
from nemotron_triton.bundle import Bundle, digest
from nemotron_triton.errors import BundleError

DIGEST = "00" * 32


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may damage."""
    return Path(shutil.copytree(bundle.path, tmp_path / "bundle"))


def edit_manifest(path: Path, **changes: Any) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | changes))


def add_output(path: Path, name: str, sha256: str = DIGEST) -> None:
    outputs = json.loads((path / "manifest.json").read_text())["outputs"]
    edit_manifest(path, outputs=outputs | {name: sha256})


def verify(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["verify", *map(str, arguments)])


def problems(path: Path, *options: str) -> list[tuple[str, str, str]]:
    result = verify("--json", *options, path)
    document = json.loads(result.stdout)
    failures = [(check["name"], check["detail"], check["remedy"]) for check in document["checks"] if not check["ok"]]
    assert (result.exit_code, document["ok"]) == ((1, False) if failures else (0, True)), result.output
    assert all(remedy for _, _, remedy in failures)
    return failures


def test_a_bundle_that_is_all_right_is_a_short_list(copy: Path) -> None:
    result = verify(copy)

    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0] == f"the bundle {copy}"
    assert lines[1] == "  ok       has a manifest of schema 3"
    assert re.fullmatch(r"  ok       has its \d files as they were built \(\d\.\d MB\)", lines[2])
    assert lines[3] == "  ok       is complete"
    assert all(line.startswith("  ok ") for line in lines[1:])
    assert result.stderr.splitlines()[0] == "MiB read"


def test_json_is_one_document_on_stdout(copy: Path) -> None:
    result = verify("--json", copy)

    document = json.loads(result.stdout)
    assert list(document) == ["bundle", "ok", "checks"]
    assert (document["bundle"], document["ok"]) == (str(copy), True)
    assert [check["name"] for check in document["checks"]] == ["manifest", "files", "state", "profile", "xllamacpp"]
    assert all(list(check) == ["name", "ok", "detail", "remedy"] for check in document["checks"])
    assert {check["remedy"] for check in document["checks"]} == {None}


def test_every_problem_is_reported_not_only_the_first(copy: Path) -> None:
    (copy / "tokenizer" / "tokenizer.json").write_text("{}")
    (copy / "engine" / "model.gguf").unlink()
    (copy / "engine" / "added.bin").write_text("x")
    edit_manifest(copy, state="unfinished", next_stage="convert")

    failures = problems(copy)

    assert [name for name, _, _ in failures] == ["files", "files", "files", "state"]
    text = "\n".join(detail for _, detail, _ in failures)
    assert "tokenizer.json was changed after the build (SHA-256 44136fa355b3…, the manifest says " in text
    assert "lacks engine/model.gguf (No such file or directory)" in text
    assert "holds what its manifest does not list: engine/added.bin" in text


def test_people_see_each_problem_above_its_remedy(copy: Path) -> None:
    (copy / "engine" / "added.bin").write_text("x")

    result = verify(copy)

    assert result.exit_code == 1
    assert (
        "  problem  holds what its manifest does not list: engine/added.bin\n"
        "           remove it, or copy the bundle again\n"
    ) in result.stdout


def test_many_unlisted_files_are_counted(copy: Path) -> None:
    for number in range(15):
        (copy / f"extra{number:02}").write_text("x")

    ((_, detail, _),) = problems(copy)

    assert detail.endswith("extra08, extra09 and 5 more")


def test_no_bundle_is_a_problem_too(tmp_path: Path) -> None:
    assert problems(tmp_path) == [
        ("manifest", f"no bundle at {tmp_path}: it has no manifest.json", "make one with `nemotron build-engine`")
    ]
    result = verify(tmp_path)
    assert (result.exit_code, result.stdout.splitlines()[1]) == (
        1,
        f"  problem  no bundle at {tmp_path}: it has no manifest.json",
    )


def test_a_manifest_of_another_schema_is_a_problem(copy: Path) -> None:
    edit_manifest(copy, schema_version=1)

    assert problems(copy) == [
        (
            "manifest",
            f"{copy / 'manifest.json'} has schema version 1, this nemotron reads 2 and 3",
            "build the bundle again",
        )
    ]


def test_a_bundle_of_schema_2_is_still_all_right(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["requires_sm"]
    (copy / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 2}))

    result = verify(copy)

    assert (result.exit_code, result.stdout.splitlines()[1]) == (0, "  ok       has a manifest of schema 2")


def test_an_h100_bundle_meets_its_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, copy: Path) -> None:
    (copy / "engine" / "model.gguf").unlink()
    (copy / "engine" / "config.json").write_text('{"version": "1.2.1"}')
    outputs = {name: digest(copy / name) for name in ("engine/config.json", "tokenizer/tokenizer.json")}
    (copy / "tokenizer" / "tokenizer_config.json").unlink()
    edit_manifest(
        copy,
        kind="tensorrt",
        gpu="h100",
        sm=90,
        engine_file="engine",
        outputs=outputs,
        tool_versions={"tensorrt_llm": "1.2.1"},
    )
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(H100))
    monkeypatch.syspath_prepend(tmp_path / "site")
    install(tmp_path / "site", "tensorrt_llm", "1.2.1")

    assert problems(copy) == []

    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert [name for name, _, _ in problems(copy)] == ["gpu"]
    assert problems(copy, "--bundle-only") == []


def test_without_this_machine_an_unfinished_bundle_is_still_one(copy: Path) -> None:
    edit_manifest(copy, kind="tensorrt", gpu="h100", sm=90, state="unfinished", next_stage="compile")

    ((name, detail, remedy),) = problems(copy, "--bundle-only")

    assert (name, detail) == ("state", "is unfinished: compile was not done where it was built")
    assert remedy == f"finish it with `nemotron build-engine --resume {copy}` on a machine with h100 (SM 90)"


@pytest.mark.parametrize("command", [["serve"], ["model-repo", "--output", "models"]])
def test_an_unfinished_bundle_is_refused_in_one_line(
    copy: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(copy.parent)
    edit_manifest(copy, kind="tensorrt", gpu="h100", sm=90, state="unfinished", next_stage="compile")

    result = CliRunner().invoke(main, [*command, str(copy)])

    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"Error: the bundle {copy} is unfinished: compile was not done where it was built; finish it with "
        f"`nemotron build-engine --resume {copy}` on a machine with h100 (SM 90)"
        + ("" if command[0] == "model-repo" else f" (2 more: `nemotron verify {copy}`)")
    ]
    assert not (copy.parent / "models").exists()


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret", "engine/../../secret"])
def test_a_manifest_that_names_files_elsewhere_is_refused(copy: Path, name: str) -> None:
    add_output(copy, name)

    ((check, detail, remedy),) = problems(copy)

    assert (check, remedy) == ("manifest", "do not serve it")
    assert detail.endswith(f"names {name!r}, which lies outside of the bundle")


def _link_file(copy: Path) -> None:
    (copy / "engine" / "model.gguf").rename(copy.parent / "elsewhere")
    (copy / "engine" / "model.gguf").symlink_to(copy.parent / "elsewhere")


def _link_folder(copy: Path) -> None:
    (copy / "engine").rename(copy.parent / "elsewhere")
    (copy / "engine").symlink_to(copy.parent / "elsewhere")


@pytest.mark.parametrize("link", [_link_file, _link_folder])
def test_a_link_out_of_the_bundle_is_refused_though_its_digest_is_right(
    copy: Path, link: Callable[[Path], None]
) -> None:
    link(copy)

    failures = problems(copy)

    assert (
        "files",
        f"{copy / 'engine/model.gguf'} is a link to what lies outside of the bundle",
        "do not serve it",
    ) in (failures)
    with pytest.raises(BundleError, match="is a link to what lies outside"):
        Bundle.open(copy).verify()


def test_links_within_the_bundle_and_to_it_are_fine(copy: Path) -> None:
    (copy / "engine" / "model.gguf").rename(copy / "engine" / "data")
    (copy / "engine" / "model.gguf").symlink_to("data")
    add_output(copy, "engine/data", digest(copy / "engine" / "data"))
    (copy.parent / "link").symlink_to(copy)

    assert problems(copy.parent / "link") == []


def test_a_pipe_in_the_place_of_a_file_does_not_hold_us_up(copy: Path) -> None:
    (copy / "engine" / "model.gguf").unlink()
    os.mkfifo(copy / "engine" / "model.gguf")

    ((_, detail, _),) = problems(copy)

    assert detail == f"{copy / 'engine/model.gguf'} is not a file"


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_a_manifest_that_is_no_file_is_not_read(copy: Path, make: Callable[[Path], None]) -> None:
    (copy / "manifest.json").unlink()
    make(copy / "manifest.json")

    ((name, detail, _),) = problems(copy)

    assert name == "manifest"
    assert detail.endswith("manifest.json is no file of at most 16 MiB; this is not a manifest")


@pytest.mark.parametrize("name", ["", ".", "engine", "a\0b", "x" * 5000, "loop/file", "manifest.json/x"])
def test_names_that_are_none_are_a_line_each(copy: Path, name: str) -> None:
    (copy / "loop").symlink_to("loop")
    add_output(copy, name)

    failures = problems(copy)

    assert [check for check, _, _ in failures] == ["files", "files"]
    assert failures[1][1] == "holds what its manifest does not list: loop"


def test_what_a_manifest_says_does_not_move_the_cursor(copy: Path) -> None:
    add_output(copy, "engine/\x1b[2J\r\nok\u202e")

    result = verify(copy)

    assert result.exit_code == 1
    assert r"lacks engine/\x1b[2J\r\nok\u202e (No such file or directory)" in result.stdout
    assert "\x1b" not in result.stdout


def test_a_file_name_that_is_no_text_is_shown(copy: Path) -> None:
    (copy / os.fsdecode(b"\xff")).write_text("x")

    result = verify(copy)

    assert result.exit_code == 1
    assert r"does not list: \udcff" in result.stdout
    assert problems(copy)[0][0] == "files"
