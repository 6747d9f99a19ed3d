"""What speaks for and against a GPU, a model, a precision, a KV precision and an engine kind together.

What was only read to work is data (`rules.yaml`); what follows from the formats (arithmetic, block sizes) is computed.
Nothing here was measured: the cells are those of the makers' tables.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from nemotron_build.architecture import Dimensions, Role
from nemotron_build.errors import UnsupportedError
from nemotron_build.planning.gpus import Gpu
from nemotron_build.planning.precisions import KINDS, Kind, Precision

_FILE = Path(__file__).with_name("rules.yaml")
_CELL_WARNINGS = {".": "unverified, as not listed", "?": "unverified"}


@dataclass(frozen=True)
class Finding:
    """What one rule says of a combination; `cell` when it is a table's cell that is not plainly supported."""

    level: Literal["refused", "warning", "note"]
    text: str
    cell: bool = False


@dataclass(frozen=True, kw_only=True)
class Combination:
    """What is to be built, every choice made."""

    gpu: Gpu
    architecture: Dimensions
    kind: Kind
    precision: Precision
    kv_precision: str

    def findings(self) -> Iterator[Finding]:
        """Everything the rules say of it; it is possible when none of them is a refusal."""
        rules = _rules()[self.kind]
        for level, text in rules["models"][self.architecture.model_type].items():
            yield Finding(level, text)
        if self.gpu.sm not in rules["sms"]:
            yield Finding("refused", rules["elsewhere"].format(gpu=self.gpu))
            return
        yield from self._cell(rules, "precisions", self.precision.name, self.precision.name)
        yield from self._blocks()
        if self.kv_precision in rules["kv"]:
            yield from self._cell(rules, "kv", self.kv_precision, f"a KV cache in {self.kv_precision}")
        for note in rules.get("notes", ()):
            if (
                note["precision"] == self.precision.name
                and self.gpu.sm in note.get("sms", rules["sms"])
                and self.architecture.model_type in note.get("models", rules["models"])
            ):
                yield Finding("note", note["text"])

    def _cell(self, rules: dict[str, Any], table: str, name: str, what: str) -> Iterator[Finding]:
        cell = rules[table][name].split()[rules["sms"].index(self.gpu.sm)]
        if cell == "-":
            needs = _rules()["arithmetic"].get(self.precision.arithmetic) if table == "precisions" else None
            if needs and self.gpu.sm is not None and self.gpu.sm < needs["from_sm"]:
                yield Finding("refused", f"{name} cannot run on {self.gpu}: {needs['text']}")
            else:
                absent = rules.get("absent", {}).get(name, f"{rules['title']} has no {name}")
                yield Finding("refused", f"{what} cannot be built for {self.gpu}: {absent}")
        elif cell in _CELL_WARNINGS:
            yield Finding("warning", f"{_CELL_WARNINGS[cell]}: {what} on {self.gpu} with {rules['title']}", cell=True)

    def _blocks(self) -> Iterator[Finding]:
        """A format that scales blocks of a row needs rows of whole blocks."""
        for row, name in _rows(self.architecture, self.precision.roles).items():
            if row % self.precision.block_size:
                yield Finding(
                    "refused",
                    f"{self.precision.name} scales blocks of {self.precision.block_size} weights, which do not divide "
                    f"the rows of {row} of {name}",
                )
                return


def default_kind(gpu: Gpu, architecture: Dimensions) -> Kind:
    """The engine kind for *architecture* on *gpu* when none is asked for; `UnsupportedError` when *gpu* has none."""
    here = [kind for kind in KINDS if gpu.sm in _rules()[kind]["sms"]]
    if not here:
        raise UnsupportedError(f"no engine kind is known for {gpu}")
    able = [kind for kind in here if "refused" not in _rules()[kind]["models"][architecture.model_type]]
    return (able or here)[0]


def required_sm(kind: Kind, gpu: Gpu, precision: Precision) -> int | None:
    """The lowest SM that can load an engine of *kind* built for *gpu*; None where it needs no GPU."""
    if kind != "pytorch":
        return gpu.sm  # it was compiled for that one, or for a CPU
    sms: list[int] = _rules()[kind]["sms"]
    arithmetic: dict[str, int] = _rules()["arithmetic"].get(precision.arithmetic, {})
    return max(min(sms), arithmetic.get("from_sm", 0))


@functools.lru_cache(maxsize=32)
def _rows(architecture: Dimensions, roles: frozenset[Role]) -> dict[int, str]:
    """The lengths of the rows that are quantised, each with the first tensor that has it."""
    rows: dict[int, str] = {}
    for name, weight in architecture.weights().items():
        if weight.role in roles:
            rows.setdefault(weight.shape[-1], name)
    return rows


@functools.cache
def _rules() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return found
