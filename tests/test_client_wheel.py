"""The client's wheel in bare environments: what it weighs, what importing it loads, and that it works in them.

One has CPython 3.10 with numpy 1.26 and the versions of the lock; the other the newest Python that is here, with the
newest of everything that can be had, which is more than the server can run on. How long it takes to install and to
import is recorded and not judged: `--junit-xml=FILE` writes it down. Skipped where pip reaches no index, but not in CI.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pytest

from conftest import ROOT
from environments import Environment, Version, build_wheel, interpreters
from nemotron_client import wire
from scripted_server import LAST, answer, response, scripted_server

MAX_BYTES = 60_000_000
PROGRAM = ROOT / "tests" / "support" / "bare_program.py"
PACKAGE = "import nemotron_client"
CLIENTS = "from nemotron_client import AsyncClient, Client"
EVERYTHING = """
import importlib, pkgutil, nemotron_client
for module in pkgutil.walk_packages(nemotron_client.__path__, "nemotron_client."):
    importlib.import_module(module.name)
"""
# Packages that clients never import, also where they are installed.
SERVER = {"jinja2", "nemotron_build", "nemotron_cli", "nemotron_triton", "tokenizers", "torch", "transformers"}
# Packages that only some calls and the command line need.
LATER = {"click", "docstring_parser", "jsonschema", "pydantic", "regex", "rich"}

# All of it may have to be downloaded first.
pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Bare:
    """An environment with the client's wheel and its dependencies, and nothing else."""

    version: Version
    environment: Environment


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT / "clients", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module", params=["oldest", "newest"])
def bare(
    request: pytest.FixtureRequest,
    wheel: Path,
    tmp_path_factory: pytest.TempPathFactory,
    record_testsuite_property: Callable[[str, object], None],
) -> Bare:
    folder, pythons = tmp_path_factory.mktemp("bare"), interpreters()
    version = max(pythons) if request.param == "newest" else (3, 10)
    if version not in pythons:
        lacking(f"there is no Python {version[0]}.{version[1]} on the PATH, nor one of pyenv")
    # Only the versions of the lock, which has no hash of our wheel.
    lock = (ROOT / "ci" / "constraints.txt").read_text()
    (folder / "versions.txt").write_text("\n".join(re.findall(r"^(\S.*) \\$", lock, re.MULTILINE)))
    constraints = ["numpy>=2"] if request.param == "newest" else [f"--constraint={folder}/versions.txt"]
    environment = Environment.make(folder / "venv", pythons[version])
    begin_s = time.monotonic()
    install(environment, wheel, *constraints)
    record_testsuite_property(f"wheel_install_{request.param}_s", round(time.monotonic() - begin_s, 1))
    for name, statement in (("package", PACKAGE), ("clients", CLIENTS)):
        took_s = fastest_s(environment, statement) - fastest_s(environment, "pass")
        record_testsuite_property(f"import_{name}_{request.param}_s", round(took_s, 3))
    return Bare(version, environment)


def test_the_environments_are_those_that_services_have(bare: Bare) -> None:
    numpy = json.loads(bare.environment.run("-c", "import json, numpy; print(json.dumps(numpy.__version__))"))

    assert numpy.startswith("1.26.") if bare.version == (3, 10) else int(numpy.partition(".")[0]) >= 2
    assert not [path.name for path in bare.environment.packages.glob("click*")]


def test_both_clients_work_in_a_bare_environment(bare: Bare) -> None:
    def script(request: Any, _: grpc.ServicerContext) -> Iterator[Any]:
        tools = wire.TOOLS.name in [tensor.name for tensor in request.inputs]
        if tools and b"tool_call_id" not in b"".join(request.raw_input_contents):
            function = {"name": "add", "arguments": '{"a": 2, "b": 3}'}
            calls = [{"index": 0, "id": "call_0", "type": "function", "function": function}]
            yield response({wire.TOOL_CALLS: json.dumps(calls), **LAST, wire.FINISH_REASON: "tool_calls"})
        else:
            yield from answer("hello")

    with scripted_server(script) as server:
        seen = json.loads(bare.environment.run(PROGRAM, server.url))

    assert seen == {"ready": True, "chat": "hello", "stream": "hello", "run": ["5"], "async": "hello"}


def test_the_wheel_and_its_dependencies_take_less_than_60_megabytes_beyond_numpy(bare: Bare) -> None:
    # Without what pip compiles.
    packages = bare.environment.packages
    files = [path for path in packages.rglob("*") if path.is_file() and path.suffix != ".pyc"]

    sizes: Counter[str] = Counter()
    for path in files:
        sizes[path.relative_to(packages).parts[0]] += path.stat().st_size

    assert {"grpc", "nemotron_client", "numpy"} < set(sizes)
    beyond_numpy = {name: size for name, size in sizes.most_common() if not name.startswith("numpy")}
    assert sum(beyond_numpy.values()) < MAX_BYTES, beyond_numpy


def test_importing_the_package_loads_nothing_else(bare: Bare) -> None:
    assert loaded(bare.environment.run, PACKAGE) == {"nemotron_client"}


def test_importing_the_clients_loads_only_what_every_call_needs(bare: Bare) -> None:
    packages = loaded(bare.environment.run, CLIENTS)

    assert {"grpc", "nemotron_client"} < packages
    assert packages & (SERVER | LATER) == set()


def test_no_module_of_the_client_loads_what_is_for_servers(bare: Bare) -> None:
    runs = [loaded(run, EVERYTHING) for run in (bare.environment.run, run_here)]

    assert all("grpc" in packages for packages in runs)
    assert [packages & SERVER for packages in runs] == [set(), set()]


def test_all_that_the_client_needs_is_there_for_python_3_14(wheel: Path, tmp_path: Path) -> None:
    here = Environment.make(tmp_path / "venv", Path(sys.executable))

    report = install(here, "--dry-run", "--python-version=3.14", "--only-binary=:all:", f"--target={tmp_path}", wheel)

    assert "nemotron-client" in report.splitlines()[-1]


@pytest.mark.server  # the command that would start one, which says why it cannot
@pytest.mark.parametrize("bare", ["newest"], indirect=True)
def test_where_the_server_cannot_run_the_command_line_talks_and_says_what_serving_needs(
    bare: Bare, tmp_path: Path
) -> None:
    whole = Environment.make(tmp_path / "venv", bare.environment.python, behind=[bare.environment.packages])
    install(whole, "--no-deps", build_wheel(ROOT, tmp_path), "click")

    def run_module(*words: str) -> tuple[int, str]:
        ran = subprocess.run([whole.python, "-m", *words], capture_output=True, text=True, check=False)
        return ran.returncode, ran.stderr

    assert run_module("nemotron_cli", "chat", "--help") == (0, "")
    status, error = run_module("nemotron_triton.tritonserver")
    assert (status, error.partition(", and this Python has numpy 2.")[0]) == (
        1,
        "error: tritonserver's Python stub needs numpy<2",
    )
    status, error = run_module("nemotron_cli", "serve", "bundle")
    needs = "and Python 3.10 to 3.12: " if bare.version >= (3, 13) else ": pip install"
    assert (status, error.count("\n")) == (1, 1)
    assert re.match(f"Error: this command needs \\w+ ?{needs}", error), error


def lacking(reason: str) -> NoReturn:
    """Skip on a developer's machine that lacks something; in CI a skip would hide a gap."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def install(environment: Environment, *arguments: str | Path) -> str:
    installed = environment.install(*arguments)
    if installed.returncode and re.search("connection", installed.stderr, re.IGNORECASE):
        lacking("pip reaches no index")
    assert installed.returncode == 0, installed.stderr
    return installed.stdout


def loaded(run: Callable[[str, str], str], statement: str) -> set[str]:
    """The packages that *statement* loads, without Python's own."""
    new = "{name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names"
    return set(run("-c", f"import sys; before = set(sys.modules)\n{statement}\nprint(*{new})").split())


def run_here(*arguments: str) -> str:
    return subprocess.run([sys.executable, "-I", *arguments], capture_output=True, text=True, check=True).stdout


def fastest_s(environment: Environment, code: str) -> float:
    """Seconds of the fastest of five runs."""
    times_s = []
    for _ in range(5):
        begin_s = time.monotonic()
        environment.run("-c", code)
        times_s.append(time.monotonic() - begin_s)
    return min(times_s)
