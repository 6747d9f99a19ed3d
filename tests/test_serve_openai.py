"""`nemotron serve --openai` refuses what it cannot offer with one clear line, and starts nothing."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from commands import invoke
from nemotron_triton.bundle import Bundle
from ports import free_ports
from running import serve_options
from served import port_flags

SECRET = "correct-horse-battery-staple"  # noqa: S105 - it protects nothing
EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing listens there


@pytest.mark.parametrize(
    ("flags", "status", "complaint"),
    [
        (
            ["--openai-host", EVERYWHERE],
            1,
            "everybody who reaches this machine could use the model; give --api-key-fil",
        ),
        (["--openai-host", "300.1.1.1"], 1, "cannot listen on 300.1.1.1: "),
        (["--openai-host", ""], 1, "; give --openai-host one; 0.0.0.0 means all"),
        (["--openai-port", "8001", "--grpc-port", "8001"], 2, "--grpc-port and --openai-port are both 8001; give each"),
        (["--api-key-file", "/nowhere"], 1, "cannot read the secret in /nowhere: No such file or directory"),
        (["--api-key-file", "EMPTY"], 1, "empty holds no secret; `openssl rand -hex 32` makes one"),
        (["--tls-cert", "EMPTY", "--tls-key", "EMPTY"], 2, "of --tls-cert; run `nemotron gateway --root-ca FILE`"),
        (["--secret-file", "TAKEN"], 1, "a caller is named openai-gateway, as the gateway of this server is; give it"),
        (["--secret-file", "FULL"], 1, "there are 256 callers and a gateway; at most 256 can be told apart"),
    ],
)
def test_what_cannot_be_offered_is_one_clear_line(
    bundle: Bundle, tmp_path: Path, flags: list[str], status: int, complaint: str
) -> None:
    texts = {"EMPTY": "", "TAKEN": f"openai-gateway: {SECRET}", "FULL": many_callers(256)}
    for name, text in texts.items():
        (tmp_path / name.lower()).touch(mode=0o600)
        (tmp_path / name.lower()).write_text(text)
    flags = [str(tmp_path / flag.lower()) if flag in texts else flag for flag in flags]
    (port,) = free_ports(1)

    result = invoke("serve", bundle.path, *port_flags(serve_options()), "--openai", f"--openai-port={port}", *flags)

    assert (result.exit_code, result.stdout) == (status, "")
    assert complaint in result.stderr.splitlines()[-1]


def many_callers(count: int) -> str:
    return "".join(f"caller-{number}: {SECRET}-{number}\n" for number in range(count))


def test_a_port_in_use_is_one_clear_line(bundle: Bundle) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = invoke("serve", bundle.path, *port_flags(serve_options()), "--openai", "--openai-port", port)

    complaint = f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another --openai-port"
    assert (result.exit_code, result.stderr) == (1, f"Error: {complaint}\n")


def test_keys_without_the_api_are_a_mistake(bundle: Bundle, tmp_path: Path) -> None:
    result = invoke("serve", bundle.path, *port_flags(serve_options()), "--api-key-file", tmp_path)

    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == "Error: --api-key-file is for --openai"


@pytest.mark.parametrize("words", [["gateway"], ["serve", "BUNDLE", "--openai"]])
def test_without_the_extra_it_says_what_to_install(bundle: Bundle, words: list[str]) -> None:
    words = [str(bundle.path) if word == "BUNDLE" else word for word in words]
    code = f'import sys; sys.modules["uvicorn"] = None; from nemotron_cli import main; main({words})'

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == ("Error: this command needs uvicorn: pip install '.[openai]' from a checkout of nemotron\n")
