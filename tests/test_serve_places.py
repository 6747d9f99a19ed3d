"""What a server needs of a machine, looked at before it starts; what it says of itself, and where others find it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mounts import on_read_only_mount
from nemotron_cli.ask_line import ask_line
from nemotron_cli.serve_log import ServeLog
from nemotron_triton.access import read_secret
from nemotron_triton.callers import Callers
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.errors import ServerError
from nemotron_triton.native_path import native_path, printable_path
from nemotron_triton.pid_file import PidFile
from nemotron_triton.places import check_shared_memory, temporary_parent
from nemotron_triton.serve_options import ServeOptions
from nemotron_triton.server_log import reason_of_death
from nemotron_triton.tls import Tls
from nemotron_triton.tritonserver import Tritonserver

LOADED = "I1201 11:24:17.2 1 model_lifecycle.cc:839] \"successfully loaded 'nemotron'\""
NO_GPU = 'E1201 11:24:16.2 1 server.cc:241] "CudaDriverHelper has not been initialized."'
ALL_FAILED = "error: creating server: Internal - failed to load all models"


def failed(model: str, reason: str) -> str:
    return f"E1201 11:24:02.7 1 model_lifecycle.cc:642] \"failed to load '{model}' version 1: Internal: {reason}\""


@pytest.mark.parametrize(
    ("status", "lines", "reason"),
    [
        (
            -9,
            ["nemotron: the Python stub of the engine died", "  <no Python frame>"],
            "the Python stub of the engine died",
        ),
        (-9, [NO_GPU, LOADED, ""], "was there too little memory? `dmesg` says whether the kernel ended it"),
        (1, [failed("nemotron", r"TritonModelException: no memory\n\nAt:\n  x.py(3)"), ALL_FAILED], "no memory"),
        (1, [failed("nemotron", "No space left"), failed("preprocessing", "other"), "", ALL_FAILED], "No space left"),
        (1, [failed("preprocessing", "ImportError: x"), ALL_FAILED], "ImportError: x"),
        (
            1,
            [failed("nemotron", "Stub process 'nemotron_0_0' is not healthy."), ALL_FAILED],
            "the model's Python process died; was there too little memory? `dmesg` says whether the kernel ended it",
        ),
        (
            1,
            [NO_GPU, "error: failed to start GRPC service: Unavailable", "| a | table |"],
            "failed to start GRPC service: ",
        ),
        (-11, [NO_GPU, 'E1201 11:24:02.7 1 some.cc:7] "out of luck"', "At:", "  <frozen x>(147): y"], "out of luck"),
        (1, [NO_GPU, LOADED], "successfully loaded 'nemotron'"),
        # On purpose: see readiness.py.
        (1, [failed("leaving", "unable to find backend library"), LOADED], "successfully loaded 'nemotron'"),
        (
            -6,
            ["terminate called: x", "Fatal Python error: y", "Thread 0x00 (most", '  File "z"'],
            "terminate called: x",
        ),
        (1, [NO_GPU], "its log is empty"),
    ],
)
def test_the_reason_of_a_death_is_the_line_that_gives_it(status: int, lines: list[str], reason: str) -> None:
    assert reason in reason_of_death(lines, status)


def test_a_log_shows_what_somebody_has_to_read_and_the_rest_when_it_failed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [NO_GPU, failed("leaving", "x"), LOADED, "+---+", "", '{"time": 1}', failed("nemotron", "x")]
    log, verbose, quiet = (ServeLog(verbose=mode == 1, quiet=mode == 2) for mode in range(3))

    for line in lines:
        log(line)
    shown = capsys.readouterr().err.splitlines()
    log.show_held_back()
    rest = capsys.readouterr().err.splitlines()
    for line in lines:
        verbose(line)
    everything = capsys.readouterr().err.splitlines()
    for line in lines:
        quiet(line)

    assert shown == [LOADED, '{"time": 1}', failed("nemotron", "x")]
    assert [line.strip() for line in rest[1:]] == lines[:2]
    assert everything == lines
    assert capsys.readouterr().err == ""


def test_shared_memory_that_is_too_small_is_refused_and_what_is_small_is_said() -> None:
    log: list[str] = []

    check_shared_memory(3, 1 << 20, log.append)
    with pytest.raises(ServerError, match=r"MiB free of .*, and 1000000000 models need .*; make it larger: `docker"):
        check_shared_memory(10**9, 1 << 20, log.append)
    assert log == []
    check_shared_memory(3, 1 << 60, log.append)
    with pytest.raises(ServerError, match="there is no shared memory: /nowhere: No such file"):
        check_shared_memory(3, 1, log.append, Path("/nowhere"))

    assert len(log) == 1
    assert log[0].startswith("warning: /dev/shm has ")


@pytest.mark.parametrize("name", ["with space", "José", "semi;colon", "plain"])
def test_a_temporary_folder_that_a_stub_cannot_take_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    log: list[str] = []

    parent = temporary_parent(log.append)

    assert parent == (tmp_path / name if name == "plain" else Path("/tmp"))  # noqa: S108 - nothing is made there
    assert [name in line for line in log] == ([] if name == "plain" else [True])


def test_backends_in_an_odd_place_are_reached_through_a_link(tmp_path: Path) -> None:
    odd = tmp_path / "José Müller"
    (odd / "python").mkdir(parents=True)

    plain = Tritonserver(argv=("t",), environment={}, backends=tmp_path).command(tmp_path)
    linked = Tritonserver(argv=("t",), environment={}, backends=odd).command(tmp_path)

    assert plain == ["t", f"--backend-directory={tmp_path}"]
    assert linked == ["t", f"--backend-directory={tmp_path}/backends"]
    assert (tmp_path / "backends" / "python").is_dir()


def test_names_that_are_no_text_reach_libraries_and_messages(tmp_path: Path, checkpoint: Path) -> None:
    # As an ASCII interpreter has it.
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xc3\xbc\xff"))
    shutil.copytree(checkpoint, odd)

    assert native_path(tmp_path) == str(tmp_path)
    assert sorted(os.listdir(native_path(odd))) == sorted(os.listdir(checkpoint))
    assert TokenCodec(odd / "tokenizer.json").vocab_size
    assert printable_path("b\udcc3\udcbc: …") == "bü: …"


def test_a_secret_on_a_read_only_mount_is_taken_as_it_was_mounted(tmp_path: Path) -> None:
    """As Kubernetes and Docker mount them."""
    (tmp_path / "secret").write_text("correct-horse-battery-staple\n")
    (tmp_path / "secret").chmod(0o444)
    code = "import sys, pathlib, nemotron_triton.access as a; print(a.read_secret(pathlib.Path(sys.argv[1])))"
    if not (mounted := on_read_only_mount(tmp_path)):
        pytest.skip("this user may not mount")

    with pytest.raises(ServerError, match="can be read by every user"):
        read_secret(tmp_path / "secret")
    command = [*mounted, sys.executable, "-c", code, str(tmp_path / "secret")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)

    assert result.stdout == "correct-horse-battery-staple\n"


def test_a_pid_file_has_one_living_owner(tmp_path: Path) -> None:
    file = PidFile(tmp_path / "pid")

    with file.held():
        content, mode = file.path.read_text(), file.path.stat().st_mode & 0o777
        with pytest.raises(ServerError, match=f"process {os.getpid()} serves with the pid file"), file.held():
            pass
    gone = os.listdir(tmp_path)
    file.path.write_text("4711\n")
    with file.held():
        taken_over = file.path.read_text()

    assert (content, mode) == (f"{os.getpid()}\n", 0o600)
    assert gone == os.listdir(tmp_path) == []
    assert taken_over == content


def test_a_reload_without_a_server_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"no server has the pid file .*; start it with `nemotron serve --pid-file`"):
        PidFile(tmp_path / "none").reload(1)
    (tmp_path / "stale").write_text("4711\n")
    with pytest.raises(ServerError, match=r"the server of the pid file .* runs no more"):
        PidFile(tmp_path / "stale").reload(1)


def test_the_line_that_asks_has_what_the_server_wants(tmp_path: Path) -> None:
    cert, key, secret = tmp_path / "my cert.pem", tmp_path / "key.pem", tmp_path / "secret"
    names = "subjectAltName=DNS:model.internal"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-addext", names]
    subprocess.run([*make, "-keyout", key, "-out", cert], capture_output=True, check=True)
    question = 'nemotron chat "What is the capital of France?"'

    assert ask_line(ServeOptions(), None) == f"ask it: {question} --url 127.0.0.1:8001"
    one = Callers.parse("x" * 16, "a test")
    assert ask_line(ServeOptions(callers=one), None).startswith("ask it, with NEMOTRON_SECRET set: ")
    assert ask_line(ServeOptions(callers=one, tls=Tls(cert=cert, key=key, client_ca=cert)), secret) == (
        f"ask it: {question} --url model.internal:8001 --root-ca '{cert}' --client-cert CLIENT.pem "
        f"--client-key CLIENT-KEY.pem --secret-file {secret}"
    )
    # A file that names its callers is the server's, and no client's.
    named = Callers.parse(f"alice: {'x' * 16}", "a test")
    assert ask_line(ServeOptions(callers=named), secret).startswith("ask it, with NEMOTRON_SECRET set: ")
