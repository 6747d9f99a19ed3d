"""Only the two registries name the engine kinds, and they name the same; other code asks the kind."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemotron_build.architecture import MODEL_TYPES
from nemotron_build.kinds import KIND_NAMES, KINDS, EngineKind
from nemotron_build.needs import VERBS
from nemotron_build.precisions import PRECISIONS
from nemotron_triton.engine.registry import KINDS as ENGINES

ROOT = Path(__file__).parents[1]
REGISTRIES = (ROOT / "build/src/nemotron_build/kinds", ROOT / "triton/src/nemotron_triton/engine")
# `cpu` is also a device of torch.
DEVICE = "cuda"


def branches_and_tables(code: str) -> list[int]:
    """The lines of *code* that compare with a kind's name, match one, or hold one in a table."""
    return sorted({line for node in ast.walk(ast.parse(code)) for line in _lines(node)})


def _lines(node: ast.AST) -> Iterator[int]:
    match node:
        case ast.Compare(left=left, comparators=others):
            named: list[ast.expr | None] = [left, *others]
        case ast.MatchValue(value=value) | ast.Subscript(slice=value):
            named = [value]
        case ast.Dict(keys=keys):
            named = keys
        case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
            devices = any(isinstance(item, ast.Constant) and item.value == DEVICE for item in items)
            named = [] if devices else [*items]
        case ast.Call(func=ast.Name(id="dict"), keywords=keywords):
            named = [ast.Constant(keyword.arg, lineno=keyword.lineno) for keyword in keywords]
        case _:
            return
    yield from (item.lineno for item in named if isinstance(item, ast.Constant) and item.value in KIND_NAMES)


@pytest.mark.parametrize(
    "package",
    [
        "build/src/nemotron_build",
        "build/src/nemotron_cli",
        "triton/src/nemotron_triton",
        "clients/src/nemotron_client",
        "model_repo",
    ],
)
def test_no_engine_kind_is_asked_for_by_name(package: str) -> None:
    modules = [path for path in (ROOT / package).rglob("*.py") if not {*REGISTRIES} & {*path.parents}]

    places = [
        f"{path.relative_to(ROOT)}:{line}" for path in modules for line in branches_and_tables(path.read_text("utf-8"))
    ]

    assert modules
    assert places == []


@pytest.mark.parametrize(
    "code",
    [
        "kind == 'cpu'",
        "'edge' != manifest.kind",
        "kind in ('tensorrt', 'pytorch')",
        "kind in ['cpu']",
        "{'cpu': 1, 'gpu': 2}",
        "dict(edge=1)",
        "rules['tensorrt']",
        "kinds = 'tensorrt', 'pytorch'",
        "kinds = {'edge'}",
        "Kind = Literal['cpu', 'edge']",
        "match kind:\n    case 'cpu' | 'edge':\n        pass",
    ],
)
def test_a_branch_or_table_would_be_found(code: str) -> None:
    assert branches_and_tables(code) == [2 if code.startswith("match") else 1]


@pytest.mark.parametrize(
    "code",
    [
        "device not in ('auto', 'cpu', 'cuda')",
        "device: Literal['cuda', 'cpu'] = 'cuda'",
        "find_gpu('cpu')",
        "EXTRAS = {'gguf': 'cpu'}",
        "installed_version('tensorrt')",
        "gpu.sm is None",
    ],
)
def test_devices_gpus_and_packages_are_no_kinds(code: str) -> None:
    assert branches_and_tables(code) == []


def test_what_is_built_is_served() -> None:
    assert set(KIND_NAMES) == set(ENGINES)
    assert len(KIND_NAMES) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=KIND_NAMES)
def test_a_kind_says_all_that_it_is_asked(kind: EngineKind) -> None:
    assert kind.title
    assert kind.elsewhere.format(gpu="X") != kind.elsewhere
    assert kind.sms
    assert set(kind.models) == set(MODEL_TYPES)
    assert set(kind.needs) == set(VERBS)
    assert PRECISIONS.recommended[kind.name]


def test_the_table_of_precisions_knows_no_other_kinds() -> None:
    rows = [*PRECISIONS.weights.values(), *PRECISIONS.kv.values()]

    named = {kind for row in rows for kind in row.kinds} | set(PRECISIONS.recommended)

    assert named == set(KIND_NAMES)
