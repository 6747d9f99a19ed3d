"""The lock file of a server: what is collected after it, and what is never touched."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemotron_triton.server_lock import SHM, LockError, ServerLock, collect_all, locked_folder, record


@pytest.fixture
def lock() -> Iterator[ServerLock]:
    """A lock with a name of its own; what the test leaves of it in /dev/shm is removed."""
    lock = ServerLock.of_folder(Path(f"/nowhere/nemotron-serve-test-{os.getpid()}"))
    yield lock
    for path in SHM.glob(f"{lock.path.stem}*"):
        path.unlink()


def test_the_folder_and_the_lock_are_the_owners_alone_and_go_at_the_end(
    tmp_path: Path,
) -> None:
    before = os.umask(0)
    try:
        with locked_folder(tmp_path) as (folder, _):
            lock = ServerLock.of_folder(folder)
            modes = [path.stat().st_mode & 0o777 for path in (folder, lock.path)]
            (folder / "file").touch()
    finally:
        os.umask(before)

    assert modes == [0o700, 0o600]
    assert not folder.exists()
    assert not lock.path.exists()


def test_what_a_dead_process_left_is_collected_and_what_a_living_one_holds_is_not(
    tmp_path: Path,
) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from nemotron_triton.server_lock import SHM, locked_folder\n"
        "with locked_folder(Path(sys.argv[1])) as (folder, _):\n"
        "    (SHM / (folder.name + 'region')).touch(); print(folder, flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdin
    folder = Path(process.stdout.readline().strip())
    region = SHM / f"{folder.name}region"

    collect_all()
    while_it_lives = folder.exists(), region.exists(), ServerLock.of_folder(folder).is_held_by(process.pid)
    process.kill()
    process.communicate()
    collect_all()

    assert while_it_lives == (True, True, True)
    assert not folder.exists()
    assert not region.exists()
    assert not ServerLock.of_folder(folder).path.exists()


def test_nothing_is_followed_out_of_the_places_of_a_server(lock: ServerLock, tmp_path: Path) -> None:
    precious, folder = tmp_path / "precious", tmp_path / lock.path.stem
    precious.mkdir()
    (precious / "file").touch()
    folder.symlink_to(precious)
    region = SHM / f"{lock.path.stem}region"
    region.symlink_to(precious / "file")
    descriptor = lock.hold()
    record(descriptor, folder, precious, precious / "file", SHM / "../../etc/passwd")
    os.close(descriptor)

    assert lock.collect()

    assert (precious / "file").exists()
    assert Path("/etc/passwd").exists()
    assert not lock.path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_a_file_of_another_user_is_neither_opened_nor_removed(lock: ServerLock) -> None:
    lock.path.touch()
    region = SHM / f"{lock.path.stem}region"
    region.touch()
    for path in (lock.path, region):
        os.chown(path, 65534, 65534)

    with pytest.raises(LockError, match=r"lock belongs to somebody else|cannot open .*: Permission denied"):
        lock.hold()
    assert not lock.collect()
    collect_all()

    assert lock.path.exists()
    assert region.exists()


def test_a_link_in_the_place_of_a_lock_is_refused(lock: ServerLock, tmp_path: Path) -> None:
    lock.path.symlink_to(tmp_path / "file")

    with pytest.raises(LockError, match=r"cannot open .*: Too many levels of symbolic links"):
        lock.hold()
    assert not lock.collect()

    assert not (tmp_path / "file").exists()
    assert lock.path.is_symlink()
