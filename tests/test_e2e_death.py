"""What remains when a part of a server is killed: nothing, within 15 s, and callers see their streams end."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from deaths import HELLO, LIMIT_S, VICTIMS, Family, are_orderly, die, lose_guardian
from nemotron_client import Client, StreamBroken
from nemotron_triton.bundle import Bundle
from nemotron_triton.repository import write_repository
from nemotron_triton.server_lock import SHM
from patience import wait_until
from plain_tritonserver import plain_tritonserver
from served import served_by_command


@pytest.mark.parametrize("load", [False, True], ids=["idle", "loaded"])
@pytest.mark.parametrize("victim", VICTIMS)
def test_nothing_remains_of_a_server_that_dies_and_the_next_one_starts(
    bundle: Bundle, tmp_path: Path, victim: str, load: bool
) -> None:
    # The second is the next start, in the same place.
    outcomes = [die(bundle.path, tmp_path, victim, load=load) for _ in range(2)]

    assert [(outcome.survivors, outcome.leftovers) for outcome in outcomes] == [([], [])] * 2
    assert max(max(outcome.process_s, outcome.stream_s) for outcome in outcomes) < LIMIT_S
    assert all(are_orderly(outcome.ends) for outcome in outcomes), outcomes


def test_a_server_whose_guardian_is_killed_goes_on_and_ends_in_good_order(bundle: Bundle, tmp_path: Path) -> None:
    outcome = lose_guardian(bundle.path, tmp_path, load=True)

    assert (outcome.survivors, outcome.leftovers) == ([], [])
    assert not [end for end in outcome.ends if isinstance(end, Exception)]


def test_a_stopped_stub_does_not_keep_a_dead_server(bundle: Bundle, tmp_path: Path) -> None:
    with served_by_command(bundle.path, folder=tmp_path) as served:
        family = Family.of(served.process.pid)
        family.part("stub").suspend()

        family.kill("serve")

        wait_until(lambda: not family.survivors(), LIMIT_S)
        wait_until(lambda: not os.listdir(tmp_path), LIMIT_S)


@pytest.mark.alone
def test_what_dies_whole_is_collected_by_the_next_start_and_the_living_are_left_alone(
    bundle: Bundle, tmp_path: Path
) -> None:
    with served_by_command(bundle.path, folder=tmp_path) as living:
        (kept,) = tmp_path.iterdir()
        with served_by_command(bundle.path, folder=tmp_path) as served:
            (dead,) = set(tmp_path.iterdir()) - {kept}
            family = Family.of(served.process.pid)
            # It must not start another guardian while the others die.
            family.part("stub").suspend()
            for process in (family.part("guardian"), family.serve, *family.others):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            wait_until(lambda: not family.survivors())
        regions = len(list(SHM.glob(f"{kept.name}*")))
        assert list(SHM.glob(f"{dead.name}*"))

        with served_by_command(bundle.path, folder=tmp_path), living.client() as client:
            assert not list(SHM.glob(f"{dead.name}*"))
            assert not dead.exists()
            assert len(list(SHM.glob(f"{kept.name}*"))) == regions
            assert client.chat(HELLO, thinking=False).content


@pytest.mark.parametrize("victim", ["tritonserver", "stub"])
def test_a_plain_tritonserver_dies_whole_but_spares_its_shell(bundle: Bundle, tmp_path: Path, victim: str) -> None:
    write_repository(bundle, tmp_path / "models", link=True)
    # In the session of this process, as a job of a shell is in the shell's.
    with plain_tritonserver(tmp_path / "models", tmp_path, cwd=tmp_path) as server:
        server.wait_ready()
        serving = psutil.Process(server.process.pid)
        regions = {Path(file.path) for file in serving.memory_maps() if file.path.startswith(f"{SHM}/")}
        locks = list(SHM.glob(f"nemotron-tritonserver-{serving.pid}-*.lock"))
        bystander = subprocess.Popen(["/bin/sleep", "60"])
        family = [serving, *serving.children(recursive=True)]
        (stub,) = [process for process in family if "nemotron_0_0" in process.cmdline()]
        with Client(server.url, timeout_s=30) as client:
            stream = client.stream(HELLO, end_id=-1, max_tokens=1500)
            next(stream)

            os.kill({"tritonserver": serving.pid, "stub": stub.pid}[victim], signal.SIGKILL)

            with pytest.raises(StreamBroken):
                list(stream)
        server.process.wait(LIMIT_S)
        assert psutil.wait_procs(family, timeout=LIMIT_S)[1] == []
        wait_until(lambda: not any(path.exists() for path in [*regions, *locks]), LIMIT_S)
        spared = bystander.poll() is None
        bystander.kill()
        bystander.wait()

    assert (len(regions), len(locks)) == (3, 1)
    assert spared
