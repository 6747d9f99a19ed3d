"""`nemotron serve` refuses what it cannot serve with one clear line, and starts nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from pathlib import Path

import pytest

from commands import invoke
from nemotron_triton.bundle import Bundle
from running import serve_options
from served import port_flags


@pytest.mark.parametrize(
    ("flags", "status", "complaint"),
    [
        (["--tls-cert", "CERT"], 2, "TLS needs both --tls-cert and --tls-key"),
        (["--tls-client-ca", "CERT"], 2, "TLS needs both --tls-cert and --tls-key"),
        (["--tls-cert", "/nowhere.pem", "--tls-key", "/nowhere.pem"], 1, "cannot read /nowhere.pem: No such file"),
        (["--secret-file", "/nowhere"], 1, "cannot read the secret in /nowhere: No such file or directory"),
        (["--secret-file", "WORLD"], 1, "can be read by every user of this machine; chmod 600 '"),
        (["--secret-file", "/proc"], 1, "/proc is a folder; give the file in it that holds the secret"),
        (["--http-port", "8001", "--grpc-port", "8001"], 2, "--http-port and --grpc-port are both 8001"),
        (["--pid-file", "CERT"], 1, "is no pid file; give --pid-file another name"),
        (["--pid-file", "/nowhere/pid"], 1, "cannot write the pid file /nowhere/pid: No such file or directory"),
        (["--http-host", "300.1.1.1"], 1, "cannot listen on 300.1.1.1:"),
        (["--http-host", ""], 1, "; give --http-host one"),
        (["--host", "300.1.1.1"], 1, "Error: cannot listen on 300.1.1.1: Name or service not known; give --host an"),
        (["--host", "203.0.113.1"], 1, "Error: cannot listen on 203.0.113.1:"),
        (["--host", "203.0.113.1"], 1, ": Cannot assign requested address; give --host an address of this machine"),
        (["--host", "unix:/run/x.sock"], 1, "on unix:/run/x.sock: tritonserver needs an address and a port; give --ho"),
        (["--http-host", "/run/x.sock"], 1, "cannot listen on /run/x.sock: tritonserver needs an address and a port;"),
        (["--host", "fe80::1%nowhere"], 1, "cannot listen on fe80::1%nowhere:"),
        (["--metrics-host", "::1%lo"], 1, "on ::1%lo: tritonserver's HTTP knows no interfaces of IPv6; give --metrics"),
        (["--host", ""], 1, "; give --host one"),
        (["--metrics-host", ""], 1, "; give --metrics-host one"),
        (["--ready-timeout", "inf"], 2, "inf is not in the range 0<x<=86400"),
    ],
)
def test_what_cannot_be_served_with_is_one_clear_line(
    bundle: Bundle, tmp_path: Path, flags: list[str], status: int, complaint: str
) -> None:
    world = tmp_path / "a secret"
    world.write_text("correct-horse-battery-staple")
    world.chmod(0o644)
    flags = [{"CERT": str(world), "WORLD": str(world)}.get(flag, flag) for flag in flags]

    result = invoke("serve", bundle.path, *port_flags(serve_options()), *flags)

    assert (result.exit_code, result.stdout) == (status, "")
    assert complaint in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("option", ["--http-port", "--grpc-port", "--metrics-port"])
def test_a_port_in_use_is_one_clear_line(bundle: Bundle, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = invoke("serve", bundle.path, *port_flags(serve_options()), option, port)

    assert result.exit_code == 1
    assert (
        result.stderr == f"Error: cannot listen on 127.0.0.1:{port}: Address already in use; choose another {option}\n"
    )


def test_a_changed_bundle_is_not_served(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "bundle")
    with (tmp_path / "bundle" / "engine" / "model.gguf").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")

    for command in (["serve"], ["model-repo", "--output", str(tmp_path / "models")]):
        result = invoke(*command, tmp_path / "bundle")
        assert result.exit_code == 1
        assert re.fullmatch(r"Error: \S+model\.gguf was changed after the build .*\n", result.stderr)
    assert not (tmp_path / "models").exists()


def test_a_bundle_for_another_gpu_is_not_served(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "bundle")
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    changed = manifest | {"gpu": "h100", "sm": 90, "kind": "tensorrt"}
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps(changed))

    result = invoke("serve", tmp_path / "bundle")

    assert result.exit_code == 1
    assert re.fullmatch(r"Error: the bundle \S+ was built for h100 \(SM 90\), and .*\n", result.stderr)
