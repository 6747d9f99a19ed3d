"""From the arguments of `nemotron serve` to those of tritonserver, also on machines without ptrace."""

from __future__ import annotations

import dataclasses
import json
import platform
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from nemotron_cli import main
from nemotron_triton.bundle import Bundle
from nemotron_triton.connections import Connections
from nemotron_triton.errors import ServerError
from nemotron_triton.serve_options import ServeOptions
from nemotron_triton.serving.settings import Settings
from nemotron_triton.tls import Tls
from running import serve_options
from served import nemotron, port_flags, served_by_command

# Refuses ptrace as a hardened container does: a seccomp filter, which every later program inherits.
WITHOUT_PTRACE = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 101), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in steps))
filter = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(steps), ctypes.addressof(program)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(filter), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize("setting", dataclasses.fields(Settings), ids=lambda field: field.name)
def test_every_setting_has_an_option_and_becomes_a_parameter(
    bundle: Bundle, tmp_path: Path, setting: dataclasses.Field[int]
) -> None:
    value = setting.metadata["high"]

    result = model_repo(bundle, tmp_path / "models", f"--{setting.name.replace('_', '-')}", value)

    assert result.exit_code == 0, result.output
    assert settings_of(tmp_path / "models") == replace(Settings(), **{setting.name: value})


def test_settings_that_are_not_given_have_their_defaults(bundle: Bundle, tmp_path: Path) -> None:
    model_repo(bundle, tmp_path / "models")

    assert settings_of(tmp_path / "models") == Settings()


def test_triton_s_own_parameters_beside_ours_are_no_settings() -> None:
    own = {
        "EXECUTION_ENV_PATH": {"string_value": "/env.tar.gz"},
        "FORCE_CPU_ONLY_INPUT_TENSORS": {"string_value": "no"},
    }
    parameters = own | {"max_tools": {"string_value": "7"}}

    assert Settings.read(json.dumps({"parameters": parameters})) == Settings(max_tools=7)
    with pytest.raises(ServerError, match="there is no setting max_tool; known: "):
        Settings.read(json.dumps({"parameters": {"max_tool": {"string_value": "7"}}}))


def test_a_setting_out_of_range_is_refused_with_the_range(bundle: Bundle, tmp_path: Path) -> None:
    result = model_repo(bundle, tmp_path / "models", "--max-queue-ms", 0)

    assert result.exit_code == 2
    assert "'--max-queue-ms': 0 is not in the range 1<=x<=86400000" in result.output
    assert not (tmp_path / "models").exists()


def test_how_long_to_drain_is_for_the_server_and_nothing_of_the_model(bundle: Bundle, tmp_path: Path) -> None:
    result = model_repo(bundle, tmp_path / "models", "--drain-ms", 7)

    assert "No such option '--drain-ms'" in result.output
    assert "--drain-ms" in CliRunner().invoke(main, ["serve", "--help"]).output


@pytest.mark.parametrize("command", ["serve", "model-repo"])
def test_the_help_has_every_setting_in_a_section_of_its_own(command: str) -> None:
    text = CliRunner().invoke(main, [command, "--help"]).output

    _, section = text.split("\nLimits:\n")
    assert section.count("--") == len(dataclasses.fields(Settings))
    assert "\n  BUNDLE" not in text


@pytest.mark.parametrize("tls", [None, Tls(cert=Path("cert"), key=Path("key"))], ids=["plain", "tls"])
def test_http_and_metrics_stay_on_loopback_unless_their_own_options_say_otherwise(tls: Tls | None) -> None:
    everywhere = "0.0.0.0"  # noqa: S104 - nothing listens there

    assert ServeOptions(host=everywhere, tls=tls).hosts == {
        "--http-port": "127.0.0.1",
        "--grpc-port": everywhere,
        "--metrics-port": "127.0.0.1",
    }
    assert ServeOptions(tls=tls, http_host="10.0.0.1", metrics_host="10.0.0.2").hosts == {
        "--http-port": "10.0.0.1",
        "--grpc-port": "127.0.0.1",
        "--metrics-port": "10.0.0.2",
    }


def test_a_server_on_every_address_is_reached_by_loopback() -> None:
    everywhere = "0.0.0.0"  # noqa: S104 - nothing listens there

    assert ServeOptions(host=everywhere).grpc_url == "127.0.0.1:8001"
    assert ServeOptions(http_host="::").http_url == "http://[::1]:8000"


def test_a_name_is_listened_on_as_the_number_it_stands_for() -> None:
    # Its HTTP server takes a name for 255.255.255.255.
    options = replace(serve_options(), host="localhost", http_host="localhost", metrics_host="localhost").resolved()

    assert set(options.hosts.values()) <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize("option", dataclasses.fields(Connections), ids=lambda field: field.name)
def test_every_time_of_a_connection_has_an_option_and_becomes_an_argument(option: dataclasses.Field[int]) -> None:
    changed = Connections(**{option.name: 12_345})

    text = CliRunner().invoke(main, ["serve", "--help"]).output

    assert f"--{option.name.replace('_', '-')} N" in text
    assert len(set(changed.arguments()) - set(Connections().arguments())) == 1


@pytest.mark.server
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter knows the system calls of x86-64")
def test_without_ptrace_the_value_that_loads_models_is_refused_not_shown(bundle: Bundle) -> None:
    words = [*port_flags(serve_options()), "--allow-reload"]

    result = nemotron("serve", bundle.path, *words, wrapper=[sys.executable, "-c", WITHOUT_PTRACE])

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: the server's secrets cannot be hidden from its command line: ptrace is refused; allow ptrace: in a "
        "container --cap-add SYS_PTRACE, else /proc/sys/kernel/yama/ptrace_scope at most 1\n"
    )


@pytest.mark.server
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter knows the system calls of x86-64")
def test_without_ptrace_a_bundle_is_served_with_a_warning_and_callers_have_secrets(
    bundle: Bundle, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text("correct-horse-battery-staple")
    file.chmod(0o600)
    wrapper = [sys.executable, "-c", WITHOUT_PTRACE]
    with served_by_command(bundle.path, f"--secret-file={file}", wrapper=wrapper) as served:
        served.process.terminate()
        status = served.process.wait(timeout=60)

    warning = "warning: the server's secrets cannot be hidden from its command line: ptrace is refused; "
    assert served.log[0].startswith(warning)
    assert served.log[0].endswith("; without it health says ready until the server ends\n")
    assert status == 0


@pytest.mark.server
def test_ipv6_can_be_served(bundle: Bundle) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6")

    with served_by_command(bundle.path, "--host=::1", "--http-host=::1") as served:
        second, third = served.line(), served.line()

    assert second.startswith("  gRPC     [::1]:"), served.log
    assert third.startswith("  HTTP     [::1]:"), served.log


def model_repo(bundle: Bundle, output: Path, *flags: object) -> Any:
    return CliRunner().invoke(main, ["model-repo", str(bundle.path), "--output", str(output), *map(str, flags)])


def settings_of(repository: Path) -> Settings:
    """The settings that the model reads from its configuration."""
    text = (repository / "nemotron" / "config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    return Settings.read(json_format.MessageToJson(config, preserving_proto_field_name=True))
