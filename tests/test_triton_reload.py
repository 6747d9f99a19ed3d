"""A reload that tritonserver does not answer in time: the old bundle is served, or an unknown one."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nemotron_triton.bundle import Bundle, bundle_beside, bundle_link
from nemotron_triton.errors import ServerError
from nemotron_triton.model_control import ModelControl
from nemotron_triton.reload import Reload
from nemotron_triton.repository import write_repository
from nemotron_triton.run_folder import RunFolder


@contextmanager
def slow_server(repository: Path, *, slow: int) -> Iterator[tuple[str, list[tuple[str, Path]]]]:
    """The url of a server that does not answer its first *slow* requests, and what it was asked to load from where."""
    asked: list[tuple[str, Path]] = []
    end = threading.Event()

    class Loads(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path.split("/")[-2], bundle_link(repository).resolve()))
            if len(asked) <= slow:
                end.wait(30)
                return
            self.send_response(200)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Loads) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            end.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def repository(bundle: Bundle, tmp_path: Path) -> Path:
    """A server of the bundle, with a newer bundle at `newer` beside it."""
    shutil.copytree(bundle.path, tmp_path / "newer")
    write_repository(bundle, tmp_path / "models", link=True)
    return tmp_path / "models"


def reload(repository: Path, url: str) -> Bundle:
    newer = repository.parent / "newer"
    return Reload(
        bundle_path=newer,
        repository=repository,
        run_folder=RunFolder(repository.parent),
        control=ModelControl(http_url=url, value="control"),
        timeout_s=1,
    ).run()


def test_a_model_that_may_yet_be_loaded_is_loaded_from_the_old_bundle_again(bundle: Bundle, repository: Path) -> None:
    old, newer = bundle.path.resolve(), repository.parent / "newer"

    with (
        slow_server(repository, slow=1) as (url, asked),
        pytest.raises(ServerError, match="tritonserver did not answer to loading nemotron") as caught,
    ):
        reload(repository, url)

    assert asked == [("nemotron", newer), ("nemotron", old)]
    assert "not known" not in str(caught.value)


@pytest.mark.slow
def test_a_server_that_answers_to_neither_may_serve_either(repository: Path) -> None:
    with slow_server(repository, slow=2) as (url, _), pytest.raises(ServerError, match="it serves is not known"):
        reload(repository, url)


def test_a_link_that_cannot_be_turned_is_one_clear_line(repository: Path) -> None:
    bundle_link(repository).unlink()

    with pytest.raises(ServerError, match="cannot be turned to the new bundle: No such file or directory"):
        reload(repository, "http://127.0.0.1:1")


def test_a_model_reads_one_bundle_although_the_link_is_turned(bundle: Bundle, repository: Path) -> None:
    target = bundle_beside({"model_repository": str(repository / "nemotron")})
    bundle_link(repository).unlink()
    bundle_link(repository).symlink_to(repository.parent / "newer")

    assert target.path == bundle.path.resolve()
