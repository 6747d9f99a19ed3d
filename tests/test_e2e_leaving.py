"""How a server leaves: its health says not ready first, while it still answers, and only then it refuses."""

from __future__ import annotations

import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from conftest import ROOT
from exposition import fetch, metric
from nemotron_triton.bundle import Bundle
from nemotron_triton.errors import ServerError
from nemotron_triton.server import serve
from nemotron_triton.tritonserver import Tritonserver
from patience import wait_until
from probes import readiness
from running import running, serve_options
from served import served_by_command

HELLO = [{"role": "user", "content": "What is the capital of France?"}]
# As in tests/support/patient_model.py, which runs in Triton's Python.
GATE = "NEMOTRON_TEST_GATE"


def test_it_says_not_ready_answers_for_the_delay_and_hurries_when_told_twice(bundle: Bundle) -> None:
    with served_by_command(bundle.path, "--drain-delay-ms=3600000") as served, served.client() as client:
        before = readiness(served.options)

        served.process.send_signal(signal.SIGTERM)
        line = served.wait_for("not ready: ")
        after = readiness(served.options) | {client.is_ready()}
        reply = client.chat(HELLO, thinking=False)
        models = [model.name for model in client.models()]
        wait_until(lambda: metric(served.options, "draining") == 1)
        metrics = fetch(served.options)
        served.process.send_signal(signal.SIGHUP)
        reload = served.wait_for("not reloaded: ")
        served.process.send_signal(signal.SIGTERM)
        status = served.process.wait(timeout=60)

    assert (before, after) == ({True}, {False})
    assert line == "not ready: requests are taken for 3600 s yet; a second signal ends answers"
    assert reply.content
    assert models == ["nemotron", "preprocessing", "postprocessing"]
    assert 'model="leaving"' not in metrics
    assert reload == "not reloaded: this server takes no new bundle; start it with --allow-reload"
    assert status == 0


def test_it_leaves_in_the_middle_of_a_reload_and_has_no_other_model_to_call(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    monkeypatch.setenv(GATE, str(gate))
    adapters = {"nemotron": ROOT / "tests" / "support" / "patient_model.py"}

    with (
        running(bundle, adapters=adapters, allow_reload=True, text_models=False) as served,
        ThreadPoolExecutor(1) as threads,
    ):
        gate.unlink()
        seen = len(served.log)
        reload = threads.submit(served.server.reload)
        wait_until(lambda: any("loading: nemotron:1" in line for line in served.log[seen:]))

        served.server.withdraw()
        ready, loading = readiness(served.options), not reload.done()
        with served.client() as client:
            reply = client.chat(HELLO, thinking=False)
        with grpc.insecure_channel(served.options.grpc_url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            with pytest.raises(grpc.RpcError, match="unknown model: 'leaving'"):
                stub.ModelInfer(service_pb2.ModelInferRequest(model_name="leaving"), timeout=10)
        gate.touch()
        reload.result(60)
        with pytest.raises(ServerError, match="the server is stopping"):
            served.server.reload()
        ready |= readiness(served.options)

    assert (ready, loading) == ({False}, True)
    assert reply.content


def test_a_server_that_cannot_say_it_drains_all_the_same(bundle: Bundle, tmp_path: Path) -> None:
    with served_by_command(bundle.path, "--drain-delay-ms=100", folder=tmp_path) as served:
        (tritonserver,) = psutil.Process(served.process.pid).children()
        tritonserver.suspend()
        try:
            served.process.send_signal(signal.SIGTERM)
            complaint = served.wait_for("may say that it is ready")
            served.wait_for("draining: ")
        finally:
            tritonserver.resume()
        status = served.process.wait(timeout=60)

    assert re.fullmatch(
        r"the server may say that it is ready until it ends: tritonserver did not answer to loading leaving: .*",
        complaint,
    )
    assert status == 0
    assert not any("Traceback" in line for line in served.log)


def test_a_server_that_dies_in_the_delay_is_an_error_and_not_a_quiet_end(bundle: Bundle) -> None:
    up = threading.Event()
    server = Tritonserver(argv=("/bin/sh", "-c", "echo up; exec sleep 1"), environment={})
    with serve(bundle, serve_options(), log=lambda line: up.set(), server=server) as running:
        assert up.wait(20)
        with pytest.raises(ServerError, match="the server may say that it is ready until it ends: "):
            running.withdraw()

        with pytest.raises(ServerError, match="tritonserver exited with status 0 while serving"):
            running.wait(threading.Event(), 60)
