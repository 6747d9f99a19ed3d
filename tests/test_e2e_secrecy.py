"""What other users of the machine see of prompts, answers and secrets: nothing, whoever started tritonserver."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from deaths import Family
from nemotron_client import Client
from nemotron_triton.bundle import Bundle
from nemotron_triton.repository import write_repository
from nemotron_triton.server_lock import SHM, collect_all
from patience import wait_until
from plain_tritonserver import plain_tritonserver
from served import served_by_command
from stranger import seen_by_nobody, seen_by_root

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can look as another user")
RECORD = f"PATIENT-RECORD-{secrets.token_hex(4)}"
SECRET = f"correct-horse-{secrets.token_hex(8)}"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for temporary files that everybody may look into."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def open_umask() -> Iterator[None]:
    """A process that forbids nothing by itself."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def ask(url: str, secret: str | None = None) -> None:
    """Have the models that take prompts see the record."""
    with Client(url, timeout_s=60, secret=secret) as client:
        messages = [{"role": "user", "content": f"{RECORD} " * 20}]
        client.chat(messages, max_tokens=8)
        client.count_tokens(messages)


def visible(folder: Path) -> list[str]:
    """Where the user `nobody` finds record or secret."""
    return seen_by_nobody([RECORD, SECRET], [folder])


def left(folder: Path) -> list[str]:
    """The files in which text of requests is left."""
    return seen_by_root([RECORD], [folder])


@pytest.mark.alone
@pytest.mark.parametrize("end", ["SIGTERM", "crash"])
def test_of_a_server_nobody_sees_text_or_secret(
    bundle: Bundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    secret_file = tmp_path / "secret"
    secret_file.write_text(SECRET)
    secret_file.chmod(0o600)
    by_environment = end == "crash"
    if by_environment:
        monkeypatch.setenv("NEMOTRON_SECRET", SECRET)
    flags = [] if by_environment else [f"--secret-file={secret_file}"]
    with open_umask(), served_by_command(bundle.path, *flags, folder=folder) as served:
        monkeypatch.delenv("NEMOTRON_SECRET", raising=False)
        ask(served.options.grpc_url, SECRET)
        (temporary,) = folder.iterdir()
        modes = {path.stat().st_mode & 0o777 for path in SHM.glob(f"{temporary.name}*")}
        during, really = visible(folder), left(folder)
        family = Family.of(served.process.pid)
        if end == "SIGTERM":
            served.process.terminate()
        else:
            family.part("stub").suspend()
            for process in (family.part("guardian"), family.serve, *family.others):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        wait_until(lambda: not family.survivors())

    after, remains = visible(folder), left(folder)
    collect_all()

    assert modes == {0o600}
    assert (temporary.exists(), during, after) == (False, [], [])
    # The text is there, for its owner: the look itself sees.
    assert really
    assert bool(remains) == (end == "crash")
    assert left(folder) == []


def test_of_a_plain_tritonserver_nobody_sees_text(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    write_repository(bundle, tmp_path / "models", link=True)
    with open_umask(), plain_tritonserver(tmp_path / "models", folder, cwd=folder) as server:
        server.wait_ready()
        ask(server.url)
        process = psutil.Process(server.process.pid)
        regions = {Path(file.path) for file in process.memory_maps() if file.path.startswith(f"{SHM}/")}
        modes = {path.stat().st_mode & 0o777 for path in regions}
        during, really = visible(folder), left(folder)
        family = [process, *process.children(recursive=True)]
        for part in family:
            part.suspend()
        for part in family:
            part.kill()
        assert psutil.wait_procs(family, timeout=20)[1] == []
        after = visible(folder)
        collect_all()

    assert (len(regions), modes) == (3, {0o600})
    assert (during, after) == ([], [])
    assert really
    assert left(folder) == []
