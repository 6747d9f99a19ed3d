"""Files and folders appear whole or not at all, and old ones go only when the new ones are in place."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemotron_triton import atomic
from nemotron_triton.atomic import atomic_folder, write_atomically


def test_a_file_is_replaced_or_left_as_it_is(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", "old", mode=0o600)

    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "file", "new", replace=False)
    with pytest.raises(UnicodeEncodeError):
        write_atomically(tmp_path / "file", "\ud800")
    before = (tmp_path / "file").read_text(), (tmp_path / "file").stat().st_mode & 0o777
    write_atomically(tmp_path / "file", "new")

    assert before == ("old", 0o600)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "new"}


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "folder") as folder:
        fail(folder)

    assert list(tmp_path.iterdir()) == []


def theirs(folder: Path) -> Path:
    """A file in a folder that another process has made meanwhile."""
    folder.mkdir()
    return folder / "theirs"


def test_a_folder_of_others_is_not_replaced_unasked(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not empty"), atomic_folder(tmp_path / "folder"):
        theirs(tmp_path / "folder").touch()

    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["folder", "folder/theirs"]


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(new: Path, place: Path) -> None:
        raise OSError("the disk is full")

    with atomic_folder(tmp_path / "folder") as folder:
        (folder / "old").touch()
    monkeypatch.setattr(atomic, "rename_into_place", full)
    with pytest.raises(OSError, match="the disk is full"), atomic_folder(tmp_path / "folder", replace=True) as folder:
        (folder / "new").touch()

    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["folder", "folder/old"]


def test_what_a_killed_process_left_is_removed_by_who_holds_the_lock(tmp_path: Path) -> None:
    (tmp_path / "partial" / "stale").mkdir(parents=True)

    with atomic_folder(tmp_path / "folder", partial=tmp_path / "partial") as folder:
        (folder / "new").touch()

    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["folder", "folder/new"]
