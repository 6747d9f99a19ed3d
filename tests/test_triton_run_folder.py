"""The folder in which `nemotron serve` and its model processes share who still answers and what was verified."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nemotron_triton.bundle import Bundle
from nemotron_triton.errors import BundleError, ServerError
from nemotron_triton.run_folder import VARIABLE, RunFolder, verify_once


def test_the_server_and_a_model_see_each_other(tmp_path: Path) -> None:
    server, model = RunFolder(tmp_path), RunFolder.named_in({VARIABLE: str(tmp_path)})
    assert model
    seen = [(server.anyone_serves(), model.withdrawn, model.draining)]

    model.enter()
    seen.append((server.anyone_serves(), model.withdrawn, model.draining))
    server.withdraw()
    seen.append((server.anyone_serves(), model.withdrawn, model.draining))
    server.drain()
    seen.append((server.anyone_serves(), model.withdrawn, model.draining))
    model.leave()
    model.leave()
    seen.append((server.anyone_serves(), model.withdrawn, model.draining))

    assert seen == [
        (False, False, False),
        (True, False, False),
        (True, True, False),
        (True, True, True),
        (False, True, True),
    ]


def test_a_model_that_died_does_not_serve(tmp_path: Path) -> None:
    (tmp_path / "serving-4194305").touch()

    assert not RunFolder(tmp_path).anyone_serves()


def test_without_a_server_of_ours_there_is_no_folder() -> None:
    assert RunFolder.named_in({}) is None


def test_a_folder_that_is_gone_is_one_clear_line_for_both(tmp_path: Path) -> None:
    gone = RunFolder(tmp_path / "gone")

    with pytest.raises(ServerError, match=r"^cannot write .*: No such file or directory$"):
        gone.enter()
    with pytest.raises(ServerError, match=r"not waited for: cannot write .*: No such file or directory$"):
        gone.drain()


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Bundle:
    """A copy of the bundle that a test may damage."""
    return Bundle.open(Path(shutil.copytree(bundle.path, tmp_path / "bundle")))


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """The folder of the server of which this process is a model."""
    (tmp_path / "run").mkdir()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "run"))
    return RunFolder(tmp_path / "run")


def read_bytes(work: Callable[[], None]) -> int:
    """The bytes that *work* reads."""

    def count() -> int:
        return int(Path("/proc/thread-self/io").read_text().split()[1])

    before = count()
    work()
    return count() - before


def test_a_bundle_that_the_server_verified_is_not_read_again(copy: Bundle, run_folder: RunFolder) -> None:
    size = copy.engine_path.stat().st_size

    first = read_bytes(lambda: verify_once(copy))
    second = read_bytes(lambda: run_folder.verify(copy))
    third = read_bytes(lambda: verify_once(Bundle.open(copy.path)))

    assert first > size
    assert second > size
    assert third < size / 2


def test_a_model_that_no_server_of_ours_started_verifies(
    copy: Bundle, run_folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_folder.verify(copy)
    monkeypatch.delenv(VARIABLE)

    assert read_bytes(lambda: verify_once(copy)) > copy.engine_path.stat().st_size


def _touch(bundle: Bundle) -> None:
    os.utime(bundle.engine_path)


def _put_another(bundle: Bundle) -> None:
    shutil.copy2(bundle.engine_path, bundle.path / "other")
    (bundle.path / "other").replace(bundle.engine_path)


@pytest.mark.parametrize("change", [_touch, _put_another])
def test_what_was_touched_after_the_server_verified_it_is_read_again(
    copy: Bundle, run_folder: RunFolder, change: Callable[[Bundle], None]
) -> None:
    run_folder.verify(copy)

    change(copy)

    assert read_bytes(lambda: verify_once(Bundle.open(copy.path))) > copy.engine_path.stat().st_size


def test_what_was_changed_after_the_server_verified_it_is_refused(copy: Bundle, run_folder: RunFolder) -> None:
    run_folder.verify(copy)
    times = copy.engine_path.stat()

    with copy.engine_path.open("r+b") as file:
        file.write(b"gguf")
    os.utime(copy.engine_path, ns=(times.st_atime_ns, times.st_mtime_ns))

    with pytest.raises(BundleError, match=r"model\.gguf was changed after the build"):
        verify_once(copy)


def test_a_server_that_cannot_leave_a_note_has_its_models_verify(copy: Bundle, run_folder: RunFolder) -> None:
    run_folder.path.rmdir()

    run_folder.verify(copy)

    assert read_bytes(lambda: verify_once(copy)) > copy.engine_path.stat().st_size
