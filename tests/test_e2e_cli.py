"""The commands as a user runs them: real processes, real signals, one clear line when something is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from conftest import ROOT
from nemotron_cli import main
from nemotron_client import Client
from nemotron_triton.bundle import Bundle, digest
from nemotron_triton.errors import ServerError
from nemotron_triton.server import ServeOptions, serve
from nemotron_triton.tritonserver import Tritonserver, find_tritonserver
from plain_tritonserver import plain_tritonserver
from running import serve_options
from served import NEMOTRON, nemotron, port_flags, served_by_command

TIP = "My bill is $100. What will be the amount for 18% tip?"


def test_a_killed_serve_takes_its_server_along(bundle: Bundle, tmp_path: Path) -> None:
    with served_by_command(bundle.path, folder=tmp_path) as served:
        family = psutil.Process(served.process.pid).children(recursive=True)
        assert len(family) >= 4

        served.process.kill()

        _, alive = psutil.wait_procs(family, timeout=20)
        assert alive == []


def test_a_signal_while_loading_stops_too(bundle: Bundle) -> None:
    options = serve_options()
    process = subprocess.Popen([*NEMOTRON, "serve", str(bundle.path), *port_flags(options)], stderr=subprocess.PIPE)
    assert process.stderr is not None
    while b"loading: nemotron" not in process.stderr.readline():
        assert process.poll() is None

    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)

    assert process.returncode == 0
    assert stderr.endswith(b"stopped\n")


def test_an_engine_that_cannot_load_is_one_clear_line(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "bundle")
    engine = tmp_path / "bundle" / "engine" / "model.gguf"
    engine.write_bytes(b"GGUF" + bytes(64))
    outputs = json.loads((tmp_path / "bundle" / "manifest.json").read_text())["outputs"]
    _edit_manifest(tmp_path / "bundle", outputs=outputs | {"engine/model.gguf": digest(engine)})

    result = nemotron("serve", tmp_path / "bundle", "--quiet", *port_flags(serve_options()))

    assert result.returncode == 1
    assert result.stdout == ""
    line = r"Error: tritonserver exited with status 1 while loading: llama\.cpp cannot load \S+model\.gguf.*\n"
    assert re.fullmatch(line, result.stderr), result.stderr


def test_a_server_that_dies_while_loading_is_one_clear_line(bundle: Bundle) -> None:
    dying = Tritonserver(argv=("/bin/sh", "-c", "echo 'error: creating server: out of luck'; exit 3"), environment={})
    with (
        pytest.raises(ServerError, match="exited with status 3 while loading: creating server: out of luck"),
        serve(bundle, serve_options(), log=lambda line: None, server=dying) as server,
    ):
        server.wait_ready(threading.Event())


def test_a_python_without_libpython_gets_a_remedy() -> None:
    with pytest.raises(ServerError, match=r"has no shared libpython3\.\d+\.so\.1\.0.*apt-get install libpython3"):
        find_tritonserver({"LIBDIR": "/nowhere", "MULTIARCH": "none"}.get)


def test_plain_tritonserver_serves_what_model_repo_wrote(bundle: Bundle, tmp_path: Path) -> None:
    """No code of ours starts the server, and none of ours asks it."""
    assert nemotron("model-repo", bundle.path, "--output", tmp_path / "models").returncode == 0
    with plain_tritonserver(tmp_path / "models", tmp_path, cwd=tmp_path) as server:
        server.wait_ready()
        with Client(server.url) as client:
            ours = client.chat(
                [{"role": "user", "content": TIP}],
                tools=json.loads((ROOT / "build/demo/tools.json").read_text()),
                thinking=False,
            )
        example = [sys.executable, str(ROOT / "clients/examples/plain_tritonclient.py"), server.url]
        plain = json.loads(subprocess.run(example, capture_output=True, check=True, timeout=60).stdout)

    (call,) = plain["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"bill_total": 100, "tip_percentage": 18}
    assert [call["function"]["name"]] == [own_call.name for own_call in ours.tool_calls] == ["calculate_tip"]
    assert plain["finish_reason"] == ours.finish_reason == "tool_calls"


def test_chat_shows_calls_as_calls_and_thinking_apart(served: ServeOptions) -> None:
    url = f"127.0.0.1:{served.grpc_port}"
    tools = ROOT / "build/demo/tools.json"

    result = nemotron("chat", TIP, "--tools", tools, "--thinking", "on", "--temperature", "0", "--url", url)

    assert result.returncode == 0
    assert result.stdout == "calculate_tip(bill_total=100, tip_percentage=18)\n"
    assert result.stderr.strip()
    assert "think>" not in result.stderr


def test_chat_thinks_at_most_so_long(served: ServeOptions) -> None:
    question = ("chat", "What is the capital of France?", "--url", f"127.0.0.1:{served.grpc_port}")

    short = nemotron(*question, "--thinking", "on", "--think-at-most", "1")
    none = nemotron(*question, "--think-at-most", "0")

    assert (short.returncode, none.returncode) == (0, 0)
    assert short.stderr.startswith("The question is")
    assert short.stdout.strip()
    assert (none.stderr, bool(none.stdout)) == ("", True)


def test_a_function_that_must_be_called_is_named_by_one_word(served: ServeOptions) -> None:
    choice = ("--tools", ROOT / "build/demo/tools.json", "--tool-choice", "calculate_tip")

    result = nemotron("chat", "Hello!", *choice, "--thinking", "off", "--url", f"127.0.0.1:{served.grpc_port}")

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("calculate_tip(")


def test_chat_json_is_one_document(served: ServeOptions) -> None:
    environment = os.environ | {"NEMOTRON_URL": f"127.0.0.1:{served.grpc_port}"}

    result = nemotron("chat", TIP, "--tools", ROOT / "build/demo/tools.json", "--json", env=environment)

    reply = json.loads(result.stdout)
    assert reply["tool_calls"][0]["function"]["name"] == "calculate_tip"
    assert reply["finish_reason"] == "tool_calls"
    assert set(reply["usage"]) == {"input_tokens", "output_tokens", "reasoning_tokens", "cached_tokens"}


def test_messages_can_come_from_stdin(served: ServeOptions) -> None:
    history = json.dumps([{"role": "user", "content": "What is the capital of France?"}])

    result = nemotron("chat", "--messages", "-", "--url", f"127.0.0.1:{served.grpc_port}", input=history)

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.strip()


@pytest.mark.parametrize(
    "command", ["build-engine", "chat", "doctor", "gpus", "model-repo", "plan", "quality", "serve", "verify"]
)
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"], prog_name="nemotron")

    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: nemotron {command}")


def _edit_manifest(path: Path, **changes: Any) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | changes))
