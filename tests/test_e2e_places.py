"""`nemotron serve` of a read-only bundle where names have accents and spaces; how it is reloaded and ends there."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import psutil

from mounts import on_read_only_mount
from nemotron_triton.bundle import Bundle
from served import nemotron, served_by_command

HELLO = [{"role": "user", "content": "What is the capital of France?"}]


def test_accents_and_spaces_a_reload_and_the_true_reason_of_an_end(bundle: Bundle, tmp_path: Path) -> None:
    home = tmp_path / "José Müller"
    (home / "tmp").mkdir(parents=True)
    served_bundle, pid_file = home / "büñdle", home / "pid"
    shutil.copytree(bundle.path, served_bundle)
    flags = ("--allow-reload", f"--pid-file={pid_file}")
    with served_by_command(
        served_bundle, *flags, folder=home / "tmp", wrapper=["env", "-u", "HOME", *on_read_only_mount(served_bundle)]
    ) as served:
        said = served.log[0]
        second = nemotron("serve", bundle.path, "--pid-file", pid_file, "--http-port", "1", "--grpc-port", "2")
        reload = nemotron("reload", "--pid-file", pid_file)
        with served.client() as client:
            reply = client.chat(HELLO, thinking=False)
        (server,) = (child for child in psutil.Process(served.process.pid).children() if child.name() == "tritonserver")
        server.send_signal(signal.SIGKILL)
        status = served.process.wait(timeout=60)
        served.wait_for("^Error")
        after = nemotron("reload", "--pid-file", pid_file)

    assert said.startswith("temporary files go to /tmp: tritonserver takes no folder like ")
    assert (second.returncode, second.stderr.splitlines()[-1]) == (
        1,
        f"Error: process {served.process.pid} serves with the pid file {pid_file}; stop it, or give another --pid-file",
    )
    assert (reload.returncode, reload.stderr) == (0, "")
    assert reload.stdout.startswith("reloaded: llama-nemotron-nano-4b-v1.1, ")
    assert "Paris" in str(reply.content)
    assert status == 1
    assert served.log[-1] == (
        "Error: tritonserver was killed by SIGKILL while serving: was there too little memory? "
        "`dmesg` says whether the kernel ended it\n"
    )
    assert not [line for line in served.log if line.startswith(("|", "+"))]
    assert (after.returncode, after.stdout) == (1, "")
    assert sorted(os.listdir(home)) == ["büñdle", "tmp"]


def test_a_reload_that_fails_ends_with_status_1(bundle: Bundle, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with served_by_command(bundle.path, "--no-text-models", f"--pid-file={pid_file}") as served:
        result = nemotron("reload", "--pid-file", pid_file)
        served.process.terminate()
        status = served.process.wait(timeout=60)

    complaint = "Error: not reloaded: this server takes no new bundle; start it with --allow-reload\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", complaint)
    assert status == 0
    assert os.listdir(tmp_path) == []
