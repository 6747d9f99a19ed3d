"""Print the reference of `nemotron_client` as Markdown: every name that it exports, from its source and its docstrings.

The source is parsed, never imported: signatures are printed as they are written, on every Python and without gRPC.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "clients" / "src" / "nemotron_client"
# The sections, and the modules that each describes; the docstring of the first introduces it.
GROUPS = {
    "Clients": ["client", "async_client"],
    "Streams": ["streams"],
    "Messages": ["messages", "json_text"],
    "Tools": ["tools", "run"],
    "Events and replies": ["events", "reply"],
    "Options": ["options"],
    "Status": ["status"],
    "Errors": ["errors"],
}
# The base classes that are described with their subclasses, and their modules.
BASES = {"BaseClient": "_base"}
# Classes that are described by how they differ from another.
TWINS = {"AsyncClient": "Client", "AsyncStream": "Stream"}
HEAD = """# Reference of `nemotron_client`

Every name below is imported from `nemotron_client` itself.
This file is written by `ci/reference`; what it says stands in the docstrings."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Module:
    """The source of one module, and the names of it that the package exports.

    The values of *constants* replace their names in signatures: readers cannot import them.
    """

    def __init__(self, name: str, exported: set[str], constants: dict[str, str]) -> None:
        self._text = source(name)
        self._constants = constants
        tree = ast.parse(self._text)
        self.introduction = markdown(tree)
        self.exported = {name: node for node in tree.body if (name := defined(node)) in exported}

    def section(self, name: str) -> Iterator[str]:
        """Everything about *name*."""
        node = self.exported[name]
        yield f"### `{name}`"
        if not isinstance(node, ast.ClassDef):
            yield python(self._written(node.lineno, node.end_lineno))
            return
        yield markdown(node)
        if name in TWINS:
            yield self._differences(
                TWINS[name], [method for method in functions(node) if not method.name.startswith("_")]
            )
            return
        methods = {method.name: (self, method) for method in functions(node)}
        for base in bases(node):
            inherited = Module(BASES[base], {base}, self._constants)
            methods = {method.name: (inherited, method) for method in functions(inherited.exported[base])} | methods
        if "__init__" in methods:
            module, constructor = methods.pop("__init__")
            yield python(module._signature(constructor).replace("def __init__", name).removesuffix(" -> None"))
            if text := markdown(constructor):
                yield text
        else:
            yield python(self._fields(node))
        for module, method in methods.values():
            if not method.name.startswith("_"):
                yield f"#### `{name}.{method.name}`\n\n{python(module._signature(method))}\n\n{markdown(method)}"

    def _differences(self, twin: str, methods: Sequence[Function]) -> str:
        awaited = [f"`{method.name}`" for method in methods if isinstance(method, ast.AsyncFunctionDef)]
        plain = [method for method in methods if isinstance(method, ast.FunctionDef)]
        returned = [f"`{method.name}`, which returns `{self._returned(method)}`" for method in plain]
        lines = [f"All parameters are those of `{twin}`.", f"Awaited: {', '.join(awaited)}."]
        return "\n".join([*lines, f"Not awaited: {'; '.join(returned)}."] if plain else lines)

    def _fields(self, node: ast.ClassDef) -> str:
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        head = self._written(first, node.body[0].lineno - 1)
        fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and not defined(item).startswith("_")]
        lines = [textwrap.indent(self._written(field.lineno, field.end_lineno), "    ") for field in fields]
        return "\n".join([head, *lines]) if lines else head.removesuffix(":")

    def _signature(self, node: Function) -> str:
        decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
        if "property" in decorators:
            return f"{node.name}: {self._returned(node)}"
        written = self._written(node.lineno, node.body[0].lineno - 1).removesuffix(":")
        without_self = re.sub(r"\((\s*)(?:self|cls)(?:,\s*|(?=\)))", r"(\1", written, count=1)
        whole = re.sub(r"\w+", lambda match: self._constants.get(match[0], match[0]), without_self)
        return "\n".join([*(f"@{decorator}" for decorator in decorators), whole])

    def _returned(self, node: Function) -> str:
        return ast.get_source_segment(self._text, node.returns) or "" if node.returns else ""

    def _written(self, first: int, last: int | None) -> str:
        return textwrap.dedent("\n".join(self._text.splitlines()[first - 1 : last]))


def source(module: str) -> str:
    """The text of a module of the package."""
    return (PACKAGE / f"{module}.py").read_text(encoding="utf-8")


def defined(node: ast.stmt) -> str:
    """The name of a class, or of a value; none of anything else."""
    if isinstance(node, ast.ClassDef):
        return node.name
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    return target.id if isinstance(target, ast.Name) else ""


def functions(node: ast.stmt) -> list[Function]:
    """The methods that a class defines itself."""
    return [item for item in getattr(node, "body", ()) if isinstance(item, Function)]


def bases(node: ast.ClassDef) -> list[str]:
    """The bases of a class that are described with it."""
    names = [ast.unparse(base).partition("[")[0] for base in node.bases]
    return [name for name in names if name in BASES]


def markdown(node: ast.Module | ast.ClassDef | Function) -> str:
    """The docstring; paragraphs with columns keep their form."""
    paragraphs = (ast.get_docstring(node) or "").split("\n\n")
    return "\n\n".join(f"```text\n{text}\n```" if re.search(r"\S {2,}\S", text) else text for text in paragraphs)


def python(code: str) -> str:
    """*code* as a block."""
    return f"```python\n{code}\n```"


def reference() -> str:
    """The whole file."""
    exported, constants = set(), {}
    for path in PACKAGE.glob("*.py"):
        text = source(path.stem)
        for node in ast.parse(text).body:
            value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
            if value and defined(node) == "__all__":
                exported = set(ast.literal_eval(value))
            elif isinstance(value, ast.Constant | ast.Subscript):
                constants[defined(node)] = ast.get_source_segment(text, value) or ""
    contents, sections = [], []
    for group, names in GROUPS.items():
        modules = [Module(name, exported, constants) for name in names]
        entries = [f"`{name}`" for module in modules for name in module.exported]
        contents.append(f"- [{group}](#{group.lower().replace(' ', '-')}): {', '.join(entries)}")
        sections += [f"## {group}", modules[0].introduction]
        sections += [part for module in modules for name in module.exported for part in module.section(name)]
    return "\n\n".join([HEAD, "\n".join(contents), *sections]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
