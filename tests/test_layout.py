"""Rules of the layout: folder names, import directions, adapter sizes, the contents of the wheel."""

from __future__ import annotations

import ast
import email
import importlib.util
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from email.message import Message
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from environments import build_wheel

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "nemotron_client": ROOT / "clients/src/nemotron_client",
    "nemotron_gateway": ROOT / "clients/src/nemotron_gateway",
    "nemotron_triton": ROOT / "triton/src/nemotron_triton",
    "nemotron_build": ROOT / "build/src/nemotron_build",
    "nemotron_cli": ROOT / "build/src/nemotron_cli",
}


@pytest.mark.parametrize("name", ["build", "triton"])
def test_name_does_not_resolve_to_our_folder(name: str) -> None:
    spec = importlib.util.find_spec(name)

    assert spec is None or str(ROOT / name) not in (spec.submodule_search_locations or [])


@pytest.mark.parametrize("folder", ["build", "triton", "clients"])
def test_no_module_lies_directly_in_a_top_folder(folder: str) -> None:
    assert list((ROOT / folder).glob("*.py")) == []


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("nemotron_client", {"nemotron_client"}),
        ("nemotron_gateway", {"nemotron_client", "nemotron_gateway"}),
        ("nemotron_triton", {"nemotron_client", "nemotron_triton"}),
        ("nemotron_build", {"nemotron_client", "nemotron_triton", "nemotron_build"}),
        (
            "nemotron_cli",
            {"nemotron_client", "nemotron_gateway", "nemotron_triton", "nemotron_build", "nemotron_cli"},
        ),
    ],
)
def test_imports_point_one_way(package: str, allowed: set[str]) -> None:
    ours = {
        (path.name, name)
        for path in PACKAGES[package].rglob("*.py")
        for name in _imported(path)
        if name.startswith("nemotron_")
    }

    assert {name for _, name in ours} <= allowed, sorted(ours)


def test_no_modules_import_each_other_in_a_circle() -> None:
    sources = {
        ".".join(path.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__"): path.read_text()
        for folder in PACKAGES.values()
        for path in folder.rglob("*.py")
    }

    assert len(sources) > 150
    assert circle(sources) == []


@pytest.mark.parametrize(
    "back",
    [
        "import p.a",
        "import p.a as a",
        "from p import a",
        "from p.a import A",
        "from . import a",
        "from .a import A",
        "if TYPE_CHECKING:\n    from p.a import A",
        "def f():\n    from p.a import A",
    ],
)
def test_a_circle_would_be_found(back: str) -> None:
    sources = {"p": "", "p.a": "from p.b import B", "p.b": "import p.c", "p.c": back}

    assert set(circle(sources)) == {"p.a", "p.b", "p.c"}
    assert circle(sources | {"p.c": "import os\nfrom p import missing"}) == []


@pytest.mark.parametrize("model", ["nemotron", "preprocessing", "postprocessing"])
def test_adapters_stay_thin(model: str) -> None:
    lines = (ROOT / "model_repo" / model / "1" / "model.py").read_text().splitlines()

    assert len(lines) < 50


def test_importing_the_client_loads_neither_grpc_nor_server_code() -> None:
    heavy = "grpc", "tokenizers", "torch", "transformers", "jinja2", "nemotron_triton"
    code = f"import sys, nemotron_client; print([name for name in {heavy!r} if name in sys.modules])"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"


def test_the_client_works_without_the_server_packages() -> None:
    code = f"""
import sys
for name in {["tokenizers", "jinja2", "yaml", "gguf", "xllamacpp", "safetensors"]!r}:
    sys.modules[name] = None
from nemotron_client import Client
from nemotron_cli import main
for arguments in (["--help"], ["chat", "--help"]):
    main(arguments, standalone_mode=False)
"""

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (result.returncode, result.stderr) == (0, "")


def test_a_command_without_its_packages_says_what_to_install() -> None:
    code = 'import sys; sys.modules["rich"] = None; from nemotron_cli import main; main(["verify", "x"])'

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: this command needs rich")
    assert result.stderr.endswith(": pip install '.[serve]' from a checkout of nemotron\n")


def test_wheel_carries_the_packages_the_adapters_and_the_data(tmp_path: Path) -> None:
    names = set(zipfile.ZipFile(build_wheel(ROOT, tmp_path)).namelist())

    for package, folder in PACKAGES.items():
        expected = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if _shipped(path)}
        assert {f"{package}/{name}" for name in expected} <= names
    for model in ("nemotron", "preprocessing", "postprocessing"):
        assert {f"nemotron_triton/model_repo/{model}/{file}" for file in ("config.pbtxt", "1/model.py")} <= names
    assert not [name for name in names if name.startswith(("tests", "build/", "ci/"))]


def test_the_wheel_of_the_client_carries_the_client_only(tmp_path: Path) -> None:
    names = set(zipfile.ZipFile(build_wheel(ROOT / "clients", tmp_path)).namelist())

    package = {name for name in names if ".dist-info/" not in name}
    folder = PACKAGES["nemotron_client"]
    assert package == {f"nemotron_client/{path.relative_to(folder)}" for path in folder.rglob("*") if _shipped(path)}
    assert names - package == {
        f"nemotron_client-0.1.0.dist-info/{name}" for name in ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE")
    }


def test_both_distributions_say_the_same_of_the_client(tmp_path: Path) -> None:
    whole, client = (_metadata(build_wheel(project, tmp_path / project.name)) for project in (ROOT, ROOT / "clients"))

    needs = {need for need in whole.get_all("Requires-Dist", []) if "extra ==" not in need}
    assert {need for need in needs if not need.startswith("click")} == set(client.get_all("Requires-Dist", []))
    for name in ("Version", "Requires-Python", "License-Expression", "Author"):
        assert whole[name] == client[name]
    assert (ROOT / "LICENSE").read_text() == (ROOT / "clients" / "LICENSE").read_text()


def test_the_lock_has_hashes_and_no_addresses() -> None:
    lock = (ROOT / "ci" / "constraints.txt").read_text()
    packages = [line for line in lock.splitlines() if line and line[0] not in "# "]

    assert "://" not in lock
    assert len(packages) > 20
    assert all(line.endswith("\\") and "==" in line for line in packages)


def _imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def circle(sources: Mapping[str, str]) -> list[str]:
    """Modules among *sources* that import each other in a circle, from the first to itself; none where none do."""
    try:
        TopologicalSorter({name: {*_imports(name, sources)} for name in sources}).prepare()
    except CycleError as error:
        return [*error.args[1]]
    return []


def _imports(module: str, sources: Mapping[str, str]) -> Iterator[str]:
    """The modules among *sources* that *module* imports anywhere: in functions and for types only, too."""
    package = module if any(name.startswith(f"{module}.") for name in sources) else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(sources[module])):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in sources)
        elif isinstance(node, ast.ImportFrom):
            start = package.rsplit(".", node.level - 1)[0] if node.level else None
            base = ".".join(filter(None, (start, node.module)))
            for alias in node.names:
                name = f"{base}.{alias.name}"
                if name in sources:
                    yield name
                elif base in sources:
                    yield base


def _metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


def _shipped(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts
