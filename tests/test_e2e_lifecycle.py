"""How a server ends and how it changes its bundle: running answers finish, new ones go elsewhere or to the new one."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from exposition import fetch, metric, samples
from nemotron_client import Client, ClientError, Finish, RequestRejected, ServerUnavailable
from nemotron_triton.bundle import Bundle, digest
from nemotron_triton.errors import ServerError
from nemotron_triton.model_control import ModelControl
from nemotron_triton.reload import Reload
from nemotron_triton.repository import write_repository
from nemotron_triton.run_folder import RunFolder
from nemotron_triton.server import RunningServer, serve
from nemotron_triton.tritonserver import Tritonserver
from patience import wait_until
from probes import readiness
from running import serve_options, stubs
from served import Served, served_by_command

HELLO = [{"role": "user", "content": "What is the capital of France?"}]
LONG = 1900


def read_long(client: Client, begun: threading.Semaphore) -> Finish:
    """The end of a long answer; *begun* is released when it has begun."""
    finish = None
    for event in client.stream(HELLO, end_id=-1, max_tokens=LONG):
        begun.release()
        finish = event
    assert isinstance(finish, Finish)
    return finish


@contextmanager
def long_answers(client: Client, count: int) -> Iterator[list[Future[Finish]]]:
    """*count* answers that have all begun."""
    begun = [threading.Semaphore(0) for _ in range(count)]
    with ThreadPoolExecutor(count) as threads:
        answers = [threads.submit(read_long, client, semaphore) for semaphore in begun]
        assert all(semaphore.acquire(timeout=60) for semaphore in begun)
        yield answers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_answers_finish_and_new_requests_are_refused(
    bundle: Bundle, tmp_path: Path, number: signal.Signals
) -> None:
    with served_by_command(bundle.path, "--drain-ms=80000", folder=tmp_path) as served, served.client() as client:
        family = psutil.Process(served.process.pid).children(recursive=True)
        with long_answers(client, 6) as answers:
            served.process.send_signal(number)
            served.wait_for("draining: answers get up to 80 s")
            refusal = refused(client)
            ready = readiness(served.options)
            running = [not answer.done() for answer in answers]
            wait_until(lambda: metric(served.options, "draining") == 1)
            finishes = [answer.result(90) for answer in answers]
        status = served.process.wait(timeout=30)

    assert "the server is stopping; ask another one" in str(refusal)
    assert ready == {False}
    assert all(running), "the answers were over before the request was refused"
    assert [(finish.reason, finish.usage.output_tokens) for finish in finishes] == [("length", LONG)] * 6
    assert status == 0
    assert served.log[-1] == "stopped\n"
    assert psutil.wait_procs(family, timeout=30)[1] == []
    assert os.listdir(tmp_path) == []


def refused(client: Client) -> ClientError:
    """How the server refuses a request, once it has noticed that it is to stop."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            client.chat(HELLO, max_tokens=1)
        except ServerUnavailable as error:
            return error
    raise AssertionError("it goes on answering")


def test_a_second_signal_does_not_wait(bundle: Bundle, tmp_path: Path) -> None:
    with served_by_command(bundle.path, "--drain-ms=600000", folder=tmp_path) as served, served.client() as client:
        family = psutil.Process(served.process.pid).children(recursive=True)
        with ThreadPoolExecutor(64) as threads:
            begun = threading.Semaphore(0)
            answers = [threads.submit(read_long, client, begun) for _ in range(64)]
            assert begun.acquire(timeout=60)

            served.process.send_signal(signal.SIGTERM)
            served.wait_for("draining: answers get up to 600 s")
            served.process.send_signal(signal.SIGTERM)
            status = served.process.wait(timeout=40)
            errors = [answer.exception(timeout=20) for answer in answers]

    assert status == 0
    assert any(errors)
    assert all(isinstance(error, ClientError) for error in errors if error)
    assert psutil.wait_procs(family, timeout=30)[1] == []
    assert os.listdir(tmp_path) == []


STANDING = "sleep 60 & touch $NEMOTRON_RUN_DIR/serving-$$; echo up; wait"


@contextmanager
def stand_in(bundle: Bundle, script: str = STANDING, drain_ms: int = 60_000) -> Iterator[RunningServer]:
    """A program in tritonserver's place that has come up."""
    up = threading.Event()
    server = Tritonserver(argv=("/bin/sh", "-c", script), environment={})
    options = replace(serve_options(), drain_ms=drain_ms)
    with serve(bundle, options, log=lambda line: up.set(), server=server) as running:
        assert up.wait(20)
        yield running


def test_a_server_that_is_done_is_not_waited_for(bundle: Bundle) -> None:
    done = "while ! [ -e $NEMOTRON_RUN_DIR/drain ]; do sleep 0.05; done; rm $NEMOTRON_RUN_DIR/serving-$$; sleep 60"
    script = f"touch $NEMOTRON_RUN_DIR/serving-$$; echo up; {done}"

    assert 0 < drained_after_s(bundle, script) < 20


def test_a_model_process_that_died_is_not_waited_for(bundle: Bundle) -> None:
    script = "sh -c 'touch $NEMOTRON_RUN_DIR/serving-$$'; echo up; exec sleep 60"

    assert drained_after_s(bundle, script) < 20


def test_a_server_that_died_is_not_waited_for(bundle: Bundle) -> None:
    assert drained_after_s(bundle, "touch $NEMOTRON_RUN_DIR/serving-1; echo up") < 20


def test_the_wait_is_bounded(bundle: Bundle) -> None:
    assert 0.3 <= drained_after_s(bundle, STANDING, drain_ms=300) < 20


def test_a_server_that_cannot_be_drained_is_stopped_at_once_with_one_line(bundle: Bundle, tmp_path: Path) -> None:
    with served_by_command(bundle.path, "--drain-ms", "90000", folder=tmp_path) as served:
        (run_folder,) = tmp_path.glob("nemotron-serve-*/run")
        # Cannot be made, as on a full disk.
        (run_folder / "drain").symlink_to("/nowhere/drain")

        served.process.send_signal(signal.SIGTERM)
        status = served.process.wait(timeout=40)
        draining = served.wait_for("draining: ")
        complaint = served.wait_for("not waited for")
        served.wait_for("stopped")

    assert status == 0
    assert draining == "draining: answers get up to 90 s; a second signal ends them"
    assert re.match(r"running answers are not waited for: cannot write \S+/drain: No such file", complaint)
    assert not any("Traceback" in line for line in served.log)


def drained_after_s(bundle: Bundle, script: str, drain_ms: int = 60_000) -> float:
    with stand_in(bundle, script, drain_ms) as running:
        begin = time.monotonic()
        running.drain(threading.Event())
        return time.monotonic() - begin


@dataclass(frozen=True)
class Reloadable:
    """A server that takes new bundles, and the place it takes them from: a link to the newest of several."""

    served: Served
    folder: Path
    original: Bundle

    def put(self, **changes: Any) -> None:
        """Point the link at a copy of the original with *changes* to its manifest."""
        copy = self.folder / f"bundle-{len(os.listdir(self.folder))}"
        shutil.copytree(self.original.path, copy)
        manifest = json.loads((copy / "manifest.json").read_text())
        (copy / "manifest.json").write_text(json.dumps(manifest | changes))
        (self.folder / "newest").unlink()
        (self.folder / "newest").symlink_to(copy)

    def in_repository(self) -> Path:
        """What tritonserver would load."""
        (link,) = self.folder.glob("tmp/nemotron-serve-*/models/nemotron/1/bundle")
        return link.resolve()

    def hang_up(self) -> str:
        """Send SIGHUP, and return the line with the result."""
        seen = len(self.served.log)
        self.served.process.send_signal(signal.SIGHUP)
        return self.served.wait_for("reloaded:", seen)

    def context(self) -> int:
        """The context length of the bundle that answers."""
        with self.served.client() as client, pytest.raises(RequestRejected) as caught:
            client.chat(HELLO, max_tokens=1_000_000)
        match = re.search(r"a context of (\d+)", str(caught.value))
        assert match, str(caught.value)
        return int(match[1])


@pytest.fixture(scope="module")
def reloadable(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reloadable]:
    folder = tmp_path_factory.mktemp("reload")
    (folder / "tmp").mkdir()
    (folder / "newest").symlink_to(bundle.path)
    with served_by_command(folder / "newest", "--allow-reload", folder=folder / "tmp") as served:
        yield Reloadable(served, folder, bundle)


def test_a_new_bundle_answers_and_the_old_one_finishes(reloadable: Reloadable) -> None:
    reloadable.put()
    reloadable.hang_up()
    assert reloadable.context() == 2048

    with reloadable.served.client() as client, long_answers(client, 2) as answers:
        reloadable.put(max_seq_len=1024)
        line = reloadable.hang_up()
        context = reloadable.context()
        described = client.describe().context_tokens
        finishes = [answer.result(90) for answer in answers]

    assert re.fullmatch(r"reloaded: llama-nemotron-nano-4b-v1.1, \S+, built \S+", line)
    assert context == described == 1024
    # The old load is over only when its answers are.
    wait_until(lambda: served_bundles(reloadable.served) == {digest(reloadable.in_repository() / "manifest.json"): 1})
    # More than the new one could.
    assert [(finish.reason, finish.usage.output_tokens) for finish in finishes] == [("length", LONG)] * 2


def served_bundles(served: Served) -> dict[str, float]:
    """How many loads of each bundle there are, by digest, without those that were replaced."""
    info = {series: value for series, value in samples(fetch(served.options)).items() if "bundle_info" in series}
    return {re.findall(r'bundle_digest="(\w+)"', series)[0]: value for series, value in info.items() if value}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"memory": {"weights_bytes": 1 << 20, "kv_bytes_per_token": 1, "kv_cache_bytes": 1 << 50}},
            r"the engine needs 1,073,741,825 MiB \(weights 1 MiB, .* and [\d,]+ MiB of this machine's memory are free",
        ),
        ({"kind": "tensorrt", "gpu": "h100", "sm": 90}, r"was built for h100 \(SM 90\)"),
        ({"schema_version": 1}, "has schema version 1"),
    ],
)
def test_a_bundle_that_cannot_be_loaded_changes_nothing(
    reloadable: Reloadable, changes: dict[str, Any], complaint: str
) -> None:
    line = refusal_of_bundle(reloadable, **changes)

    assert re.match(f"not reloaded: .*{complaint}", line), line


def test_a_bundle_that_only_the_model_refuses_changes_nothing_and_can_be_replaced(reloadable: Reloadable) -> None:
    refused = refusal_of_bundle(reloadable, max_seq_len=1 << 40)
    reloadable.put(max_seq_len=512)
    loaded = reloadable.hang_up()

    assert re.match("not reloaded: .*value too large", refused), refused
    assert loaded.startswith("reloaded: ")
    assert reloadable.context() == 512


def refusal_of_bundle(reloadable: Reloadable, **changes: Any) -> str:
    """The line about a bundle with *changes* that is refused, while the old one is still served."""
    before = reloadable.context(), reloadable.in_repository()
    reloadable.put(**changes)
    line = reloadable.hang_up()
    assert (reloadable.context(), reloadable.in_repository()) == before
    with reloadable.served.client() as client:
        assert client.is_ready()
        assert client.chat(HELLO, thinking=False).content
    assert readiness(reloadable.served.options) == {True}
    return line


def test_the_way_back_hides_no_reason_and_leaves_no_model_out(bundle: Bundle, tmp_path: Path) -> None:
    asked: list[str] = []
    refusals = {3: "the new one does not fit", 4: "the old one does not fit any more"}

    class Loads(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path.split("/")[-2])
            self.send_response(400 if len(asked) in refusals else 200)
            self.end_headers()
            self.wfile.write(json.dumps({"error": refusals.get(len(asked), "")}).encode())

    write_repository(bundle, tmp_path / "models", link=True)
    with HTTPServer(("127.0.0.1", 0), Loads) as server, ThreadPoolExecutor(1) as threads:
        threads.submit(server.serve_forever)
        reload = Reload(
            bundle_path=bundle.path,
            repository=tmp_path / "models",
            run_folder=RunFolder(tmp_path),
            control=ModelControl(http_url=f"http://127.0.0.1:{server.server_port}", value="control"),
            timeout_s=20,
        )
        try:
            with pytest.raises(
                ServerError, match=r"^the new one does not fit; nemotron could not be put back: the old"
            ):
                reload.run()
        finally:
            server.shutdown()

    assert asked == ["nemotron", "preprocessing", "postprocessing", "nemotron", "preprocessing"]


def test_a_server_of_one_model_chats_reloads_and_says_what_it_does_not_have(bundle: Bundle, tmp_path: Path) -> None:
    flags = ("--no-text-models", "--allow-reload")
    with served_by_command(bundle.path, *flags, folder=tmp_path) as served, served.client() as client:
        processes = stubs(served.process.pid)
        served.process.send_signal(signal.SIGHUP)
        line = served.wait_for("reloaded:")
        reply = client.chat(HELLO, thinking=False)
        models = [model.name for model in client.models()]
        ready = client.is_ready()
        with pytest.raises(RequestRejected) as refusal:
            client.count_tokens(HELLO)

    assert line.startswith("reloaded: ")
    assert reply.content
    assert (models, ready, len(processes)) == (["nemotron"], True, 1)
    assert str(refusal.value).removeprefix(served.options.grpc_url) == (
        " has no model preprocessing, which renders prompts; start it without --no-text-models"
    )


def test_a_bundle_is_read_once_to_be_served_and_once_to_be_replaced(bundle: Bundle, tmp_path: Path) -> None:
    size = 256 << 20
    shutil.copytree(bundle.path, tmp_path / "bundle")
    with (tmp_path / "bundle" / "engine" / "large").open("wb") as file:
        file.truncate(size)
    outputs = bundle.manifest.outputs | {"engine/large": digest(tmp_path / "bundle" / "engine" / "large")}
    (tmp_path / "bundle" / "manifest.json").write_text(replace(bundle.manifest, outputs=outputs).to_json())
    options, log = replace(serve_options(), allow_reload=True), list[str]()
    us, read = psutil.Process(), list[int]()

    before = us.io_counters().read_chars
    with serve(Bundle.open(tmp_path / "bundle"), options, log=log.append) as server:
        assert server.wait_ready(threading.Event()), log
        first = stubs(server.pid)
        read += [us.io_counters().read_chars - before, *(stub.io_counters().read_chars for stub in first)]
        os.utime(tmp_path / "bundle" / "engine" / "large")
        before = us.io_counters().read_chars
        server.reload()
        second = stubs(server.pid) - first
        read += [us.io_counters().read_chars - before, *(stub.io_counters().read_chars for stub in second)]

    assert [count // size for count in read] == [1, 0, 0, 0, 1, 0, 0, 0]


def test_a_server_without_allow_reload_takes_no_new_bundle(bundle: Bundle, tmp_path: Path) -> None:
    with served_by_command(bundle.path, folder=tmp_path) as served, served.client() as client:
        served.process.send_signal(signal.SIGHUP)

        line = served.wait_for("reloaded:")
        assert line == "not reloaded: this server takes no new bundle; start it with --allow-reload"
        assert client.chat(HELLO, thinking=False).content


def test_a_bundle_is_loaded_by_one_at_a_time_and_not_for_ever(bundle: Bundle) -> None:
    options = replace(serve_options(), allow_reload=True, ready_timeout_s=1)
    server = Tritonserver(argv=("/bin/sh", "-c", "exec sleep 60"), environment={})
    with (
        serve(bundle, options, log=lambda line: None, server=server) as running,
        socket.create_server(("127.0.0.1", options.http_port)) as silent,
        ThreadPoolExecutor(1) as threads,
    ):
        first = threads.submit(running.reload)
        asked, _ = silent.accept()
        with pytest.raises(ServerError, match="a new bundle is being loaded already"):
            running.reload()
        with pytest.raises(ServerError, match="tritonserver did not answer to loading nemotron"):
            first.result(20)
        asked.close()
