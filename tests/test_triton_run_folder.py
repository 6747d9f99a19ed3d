"""Who still answers, between `nemotron serve` and its model processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemotron_triton.errors import ServerError
from nemotron_triton.run_folder import VARIABLE, RunFolder


def test_the_server_and_a_model_see_each_other(tmp_path: Path) -> None:
    server, model = RunFolder(tmp_path), RunFolder.named_in({VARIABLE: str(tmp_path)})
    assert model
    seen = [(server.anyone_serves(), model.draining)]

    model.enter()
    seen.append((server.anyone_serves(), model.draining))
    server.drain()
    seen.append((server.anyone_serves(), model.draining))
    model.leave()
    model.leave()
    seen.append((server.anyone_serves(), model.draining))

    assert seen == [(False, False), (True, False), (True, True), (False, True)]


def test_a_model_that_died_does_not_serve(tmp_path: Path) -> None:
    (tmp_path / "serving-4194305").touch()

    assert not RunFolder(tmp_path).anyone_serves()


def test_without_a_server_of_ours_there_is_no_folder() -> None:
    assert RunFolder.named_in({}) is None


def test_a_folder_that_is_gone_is_one_clear_line_for_both(tmp_path: Path) -> None:
    gone = RunFolder(tmp_path / "gone")

    with pytest.raises(ServerError, match=r"the model cannot say that it serves: .*: No such file or directory"):
        gone.enter()
    with pytest.raises(ServerError, match="the model cannot be told: No such file or directory"):
        gone.drain()
