"""The wheel in a bare environment: what it weighs with its base dependencies, and what importing the client loads.

How long that takes is recorded and not judged: `--junit-xml=FILE` writes it down. Skipped where pip reaches no index.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import ROOT

BUILD = "from hatchling.build import build_wheel; import sys; build_wheel(sys.argv[1])"
MAX_BYTES = 60_000_000
PACKAGE = "import nemotron_client"
CLIENTS = "from nemotron_client import AsyncClient, Client"
EVERYTHING = """
import importlib, pkgutil, nemotron_client
for module in pkgutil.walk_packages(nemotron_client.__path__, "nemotron_client."):
    importlib.import_module(module.name)
"""
# None of it is for clients to load, also where it is installed.
SERVER = {"jinja2", "nemotron_build", "nemotron_triton", "tokenizers", "torch", "transformers"}
# What only some calls need, and the command line.
LATER = {"click", "docstring_parser", "jsonschema", "pydantic", "rich"}

# All of it may have to be downloaded first.
pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Bare:
    """An environment with nothing in it but the wheel and its base dependencies, as the lock has them."""

    python: Path
    packages: Path


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, record_testsuite_property: Callable[[str, object], None]) -> Bare:
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    # Of the lock, the versions; the wheel has no hash there.
    lock = (ROOT / "ci" / "constraints.txt").read_text()
    (folder / "versions.txt").write_text("\n".join(re.findall(r"^(\S.*) \\$", lock, re.MULTILINE)))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    (packages,) = folder.glob("venv/lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "install", "--retries=1", f"--target={packages}"]
    begin_s = time.monotonic()
    command = [*pip, f"--constraint={folder}/versions.txt", str(wheel)]
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    if installed.returncode and re.search("connection", installed.stderr, re.IGNORECASE):
        pytest.skip("pip reaches no index")
    assert installed.returncode == 0, installed.stderr
    record_testsuite_property("wheel_install_s", round(time.monotonic() - begin_s, 1))
    python = folder / "venv" / "bin" / "python"
    for name, statement in (("package", PACKAGE), ("clients", CLIENTS)):
        took_s = fastest_s(python, statement) - fastest_s(python, "pass")
        record_testsuite_property(f"import_{name}_s", round(took_s, 3))
    return Bare(python, packages)


def test_the_wheel_and_its_dependencies_take_less_than_60_megabytes_beyond_numpy(bare: Bare) -> None:
    # Without what pip compiles.
    files = [path for path in bare.packages.rglob("*") if path.is_file() and path.suffix != ".pyc"]

    sizes: Counter[str] = Counter()
    for path in files:
        sizes[path.relative_to(bare.packages).parts[0]] += path.stat().st_size

    assert {"grpc", "nemotron_client", "numpy"} < set(sizes)
    beyond_numpy = {name: size for name, size in sizes.most_common() if not name.startswith("numpy")}
    assert sum(beyond_numpy.values()) < MAX_BYTES, beyond_numpy


def test_importing_the_package_loads_nothing_else(bare: Bare) -> None:
    assert loaded(bare.python, PACKAGE) == {"nemotron_client"}


def test_importing_the_clients_loads_only_what_every_call_needs(bare: Bare) -> None:
    packages = loaded(bare.python, CLIENTS)

    assert {"grpc", "nemotron_client"} < packages
    assert packages & (SERVER | LATER) == set()


def test_no_module_of_the_client_loads_what_is_for_servers(bare: Bare) -> None:
    found = [loaded(python, EVERYTHING) for python in (bare.python, Path(sys.executable))]

    assert all("grpc" in packages for packages in found)
    assert [packages & SERVER for packages in found] == [set(), set()]


def loaded(python: Path, statement: str) -> set[str]:
    """The packages that *statement* loads, without Python's own."""
    code = f"import sys; before = set(sys.modules)\n{statement}\nprint(*set(sys.modules) - before)"
    return {name.partition(".")[0] for name in run(python, code).split()} - sys.stdlib_module_names


def run(python: Path, code: str) -> str:
    return subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout


def fastest_s(python: Path, code: str) -> float:
    """Seconds of the fastest of five runs."""
    times_s = []
    for _ in range(5):
        begin_s = time.monotonic()
        run(python, code)
        times_s.append(time.monotonic() - begin_s)
    return min(times_s)
