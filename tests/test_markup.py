"""Each tag of the models' markup is in one module of the packages, apart from templates and profiles."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

import pytest

from conftest import ROOT

# However a tag is escaped; a piece of one counts too.
TAGS = {
    r"<[\\/]*think\b": "nemotron_triton/chat/reasoning.py",
    r"<[\\/]*TOOLCALL\b": "nemotron_triton/chat/formats/nemotron_json.py",
    r"<[\\/]*(tool_call|function|parameter)\b": "nemotron_triton/chat/xml_value.py",
}


def modules_that_spell(tag: str, sources: Mapping[str, str]) -> list[str]:
    """The modules among *sources* in which a string that is no docstring has *tag*."""
    return [name for name, source in sources.items() if any(re.search(tag, text) for text in strings(source))]


def strings(source: str) -> Iterator[str]:
    """Every string and bytes literal, and the fixed parts of every f-string; no docstrings."""
    tree = ast.parse(source)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            if isinstance(node.value, bytes):
                yield node.value.decode("latin-1")
            elif isinstance(node.value, str):
                yield node.value


@pytest.mark.parametrize(("tag", "home"), TAGS.items())
def test_a_tag_is_spelt_in_one_module(tag: str, home: str) -> None:
    sources = {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for folder in ROOT.glob("*/src")
        for path in sorted(folder.rglob("*.py"))
    }

    assert len(sources) > 150
    assert modules_that_spell(tag, sources) == [home]


def test_a_tag_is_seen_in_every_kind_of_string_and_in_no_docstring() -> None:
    sources = {
        "string": 'x = "a </think> b"',
        "pieces": 'x = "</th" "ink>"',
        "bytes": 'x = b"</think>"',
        "f-string": 'x = f"{1}</think>{2}"',
        "expression": r'x = r"(.|\n)*<\/think>"',
        "default": 'def f(x="<think>"): ...',
        "loose string": 'x = 1\n"<think>"',
        "docstrings": '"""<think>"""\nclass A:\n    """<think>"""\n    def f(self):\n        """<think>"""\n',
        "comment": "x = 1  # <think>",
        "other": 'x = "<thinking> think>"',
    }

    seen = modules_that_spell(next(iter(TAGS)), sources)

    assert seen == ["string", "pieces", "bytes", "f-string", "expression", "default", "loose string"]
