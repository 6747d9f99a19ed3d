"""What speaks for and against a GPU, a model, a precision, a KV precision and an engine kind together.

What was only read to work is data (`rules.yaml` for the kinds, `precisions.yaml`); what follows from the formats
(arithmetic, block sizes) is computed. Nothing here was measured: support is as in the makers' tables.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from nemotron_build.architecture import Dimensions, Role
from nemotron_build.planning.gpus import Gpu
from nemotron_build.planning.kind import Kind
from nemotron_build.precisions import KvPrecision, Precision

_FILE = Path(__file__).with_name("rules.yaml")


@dataclass(frozen=True)
class Finding:
    """What one rule says of a combination; `unproven` when a maker's table does not plainly list it."""

    level: Literal["refused", "warning", "note"]
    text: str
    unproven: bool = False


@dataclass(frozen=True, kw_only=True)
class Combination:
    """What is to be built, every choice made."""

    gpu: Gpu
    architecture: Dimensions
    kind: Kind
    precision: Precision
    kv: KvPrecision

    def findings(self) -> Iterator[Finding]:
        """Everything the rules say of it; it is possible when none of them is a refusal."""
        rules = _rules()[self.kind.name]
        for level, text in rules["models"][self.architecture.model_type].items():
            yield Finding(level, text)
        if self.gpu.sm not in rules["sms"]:
            yield Finding("refused", rules["elsewhere"].format(gpu=self.gpu))
            return
        words = rules.get("needs", {}) | (rules.get("quantizes", {}) if self.precision.quantized else {})
        yield from self._support(self.precision, self.precision.name, words, _rules()["arithmetic"])
        yield from self._blocks()
        if self.kv.quantized:
            yield from self._support(self.kv, f"a KV cache in {self.kv.name}", rules.get("quantizes_kv", {}), {})
        for note in self.precision.support(self.kind.name).notes:
            if self.gpu.sm in (note.sms or rules["sms"]) and self.architecture.model_type in (
                note.models or rules["models"]
            ):
                yield Finding("note", note.text)

    def _support(
        self,
        row: Precision | KvPrecision,
        what: str,
        words: Mapping[str, str],
        arithmetics: Mapping[str, Mapping[str, Any]],
    ) -> Iterator[Finding]:
        """Whether the GPU is one of those that *row* names for the kind, and has every one of *words* that it needs."""
        support, sm, title = row.support(self.kind.name), self.gpu.sm, _rules()[self.kind.name]["title"]
        needs = arithmetics.get(self.precision.arithmetic)
        if sm not in support.sms and needs and sm is not None and sm < needs["from_sm"]:
            yield Finding("refused", f"{what} cannot run on {self.gpu}: {needs['text']}")
        elif sm not in support.sms:
            reason = support.reason or f"{title} has no {what}"
            yield Finding("refused", f"{what} cannot be built for {self.gpu}: {reason}")
        elif tool := row.lacks(words):
            reason = f"the table of precisions has no word of {tool} for it"
            yield Finding("refused", f"{what} cannot be built for the {self.kind} engine kind: {reason}")
        elif sm not in support.listed:
            how = "unverified, as not listed" if sm in support.unlisted else "unverified"
            yield Finding("warning", f"{how}: {what} on {self.gpu} with {title}", unproven=True)

    def _blocks(self) -> Iterator[Finding]:
        """A format that scales blocks of a row needs rows of whole blocks."""
        size = self.precision.storage.block_size
        for row, name in _rows(self.architecture, self.precision.storage.roles).items():
            if row % size:
                yield Finding(
                    "refused",
                    f"{self.precision.name} scales blocks of {size} weights, which do not divide "
                    f"the rows of {row} of {name}",
                )
                return


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A combination that can be built.

    `why` says how each `auto` was settled, `warnings` what is unverified, `notes` what else is known.
    """

    kind: Kind
    precision: Precision
    kv: KvPrecision
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    why: tuple[str, ...] = ()

    @property
    def kv_precision(self) -> str:
        """The name of the KV cache's precision."""
        return self.kv.name


def runs_on(kind: Kind, gpu: Gpu) -> bool:
    """Whether engines of *kind* are made for GPUs like *gpu* at all."""
    return gpu.sm in _rules()[kind.name]["sms"]


def models_of(kind: Kind) -> list[str]:
    """The model types that engines of *kind* are made from."""
    return [name for name, findings in _rules()[kind.name]["models"].items() if "refused" not in findings]


def required_sm(kind: Kind, gpu: Gpu, precision: Precision) -> int | None:
    """The lowest SM that can load an engine of *kind* built for *gpu*; None where it needs no GPU."""
    return gpu.sm if kind.compiled else precision.requires_sm(kind.name)


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
