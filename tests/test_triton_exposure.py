"""What `nemotron serve` prints of a server's exposure, and hidden arguments. Starts no server."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nemotron_triton.callers import Callers
from nemotron_triton.exposure import exposure, warnings
from nemotron_triton.hidden_arguments import HiddenArgument, HidingError, start
from nemotron_triton.serve_options import ServeOptions
from nemotron_triton.serving.settings import Settings
from nemotron_triton.tls import Tls

SECRET = "correct-horse-battery-staple"  # noqa: S105 - it protects nothing
EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing listens there
CALLERS = Callers.parse(SECRET, "a test")
PRINTF: list[str | HiddenArgument] = ["printf", "%s|%s|%s|%s|"]
TLS = Tls(cert=Path("cert"), key=Path("key"))


def test_what_is_exposed_is_printed() -> None:
    assert list(exposure(ServeOptions())) == [
        "gRPC     127.0.0.1:8001: plain, no secret",
        "HTTP     127.0.0.1:8000: plain, no secret",
        "metrics  http://127.0.0.1:8002/metrics: plain, no secret",
        "model control off, shared memory off, tracing calls off",
    ]
    assert list(exposure(ServeOptions(host=EVERYWHERE, tls=TLS, callers=CALLERS, allow_reload=True)))[:2] == [
        "gRPC     0.0.0.0:8001: TLS, secret required (1 caller)",
        "HTTP     127.0.0.1:8000: plain, secret required (1 caller)",
    ]
    mutual = ServeOptions(host="::", metrics_host="10.0.0.1", tls=replace(TLS, client_ca=Path("ca")))
    assert list(exposure(mutual))[:3] == [
        "gRPC     [::]:8001: mutual TLS, no secret",
        "HTTP     127.0.0.1:8000: plain, no secret",
        "metrics  http://10.0.0.1:8002/metrics: plain, no secret",
    ]


def test_what_is_open_to_other_machines_is_warned_of() -> None:
    def warned(**changes: object) -> str:
        return "".join(warnings(ServeOptions(**changes)))  # type: ignore[arg-type]

    assert warned() == warned(host="127.0.0.2") == warned(host="::1") == warned(host="localhost") == ""
    assert warned(host=EVERYWHERE, tls=TLS, callers=CALLERS) == ""
    assert "reach gRPC without TLS and secret; " in warned(host=EVERYWHERE)
    assert "reach gRPC without secret; " in warned(host="10.0.0.1", tls=TLS)
    assert "reach metrics without TLS and secret; " in warned(metrics_host="::")
    assert "reach HTTP without TLS; " in warned(http_host=EVERYWHERE, tls=TLS, callers=CALLERS)
    assert "reach gRPC without secret, HTTP without TLS and secret, metrics without TLS and secret; " in warned(
        host=EVERYWHERE, http_host=EVERYWHERE, metrics_host=EVERYWHERE, tls=TLS
    )


def test_http_that_other_machines_reach_is_warned_of_whatever_protects_it() -> None:
    warning = "warning: tritonserver before 26.04 can be stopped by one HTTP request; keep HTTP behind a proxy"

    assert warning in warnings(ServeOptions(http_host=EVERYWHERE, tls=TLS, callers=CALLERS))
    assert warning not in warnings(ServeOptions(host=EVERYWHERE, metrics_host=EVERYWHERE))


def test_a_limit_for_each_caller_is_warned_of_where_none_has_a_name() -> None:
    limited = Settings(max_requests_per_caller=4)

    (warning,) = warnings(ServeOptions(settings=limited))

    assert warning.startswith("warning: --max-requests-per-caller bounds all callers together")
    assert not list(warnings(ServeOptions(settings=limited, callers=CALLERS)))
    assert not list(warnings(ServeOptions()))


def test_a_script_in_front_of_the_server_does_not_get_the_secret(tmp_path: Path) -> None:
    script = tmp_path / "tritonserver"
    script.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/seen\n')
    script.chmod(0o755)

    with pytest.raises(HidingError, match="is a script, which would show them to everybody"):
        start([str(script), HiddenArgument("--key=", SECRET)], environment=os.environ)

    assert not (tmp_path / "seen").exists()


def test_hidden_arguments_arrive_as_they_are_and_in_their_places() -> None:
    words: list[str | HiddenArgument]
    words = [HiddenArgument("a=", "one two"), "middle", HiddenArgument("b=", "=x="), HiddenArgument("c=", "")]

    process = start([*PRINTF, *words], environment={}, stdout=subprocess.PIPE, text=True)

    assert process.communicate(timeout=20)[0] == "a=one two|middle|b==x=|c=|"


def test_a_child_does_not_inherit_what_was_hidden() -> None:
    show: list[str | HiddenArgument]
    show = [sys.executable, "-c", "import os; os.execvp('env', ['env'])", HiddenArgument("--key=", SECRET)]

    process = start(show, environment=os.environ, stdout=subprocess.PIPE, text=True)

    shown = process.communicate(timeout=20)[0]
    assert "PATH=" in shown
    assert SECRET not in shown
