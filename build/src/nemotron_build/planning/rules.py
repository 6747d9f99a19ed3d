"""What speaks for and against a GPU, a model, a precision, a KV precision and an engine kind together.

What was only read to work is data (of the kinds, and `precisions.yaml`); what follows from the formats (arithmetic,
block sizes) is computed. Nothing here was measured: support is as in the makers' tables.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nemotron_build.architecture import Dimensions, Role
from nemotron_build.planning.gpus import Gpu
from nemotron_build.planning.kind import Finding, Kind
from nemotron_build.precisions import KvPrecision, Precision

# From which SM on there is an arithmetic, and what is said of GPUs before it.
_ARITHMETICS = {
    "fp8": (89, "FP8 arithmetic starts at SM89 (Ada)"),
    "fp4": (100, "FP4 arithmetic starts at SM100 (Blackwell)"),
}


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
        kind, model_type = self.kind, self.architecture.model_type
        if finding := kind.models[model_type]:
            yield finding
        if self.gpu.sm not in kind.sms:
            yield Finding("refused", kind.elsewhere.format(gpu=self.gpu))
            return
        words = {**kind.tools, **(kind.quantizers if self.precision.quantized else {})}
        yield from self._support(self.precision, self.precision.name, words)
        yield from self._blocks()
        if self.kv.quantized:
            yield from self._support(self.kv, f"a KV cache in {self.kv.name}", kind.kv_quantizers)
        for note in self.precision.support(kind.name).notes:
            if self.gpu.sm in (note.sms or kind.sms) and model_type in (note.models or kind.models):
                yield Finding("note", note.text)

    def _support(self, row: Precision | KvPrecision, what: str, words: Mapping[str, str]) -> Iterator[Finding]:
        """Whether the GPU is one of those that *row* names for the kind, and has every one of *words* that it needs."""
        support, sm, title = row.support(self.kind.name), self.gpu.sm, self.kind.title
        from_sm, since = _ARITHMETICS.get(row.arithmetic, (0, "")) if isinstance(row, Precision) else (0, "")
        if sm not in support.sms and sm is not None and sm < from_sm:
            yield Finding("refused", f"{what} cannot run on {self.gpu}: {since}")
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


@functools.lru_cache(maxsize=32)
def _rows(architecture: Dimensions, roles: frozenset[Role]) -> dict[int, str]:
    """The lengths of the rows that are quantised, each with the first tensor that has it."""
    rows: dict[int, str] = {}
    for name, weight in architecture.weights().items():
        if weight.role in roles:
            rows.setdefault(weight.shape[-1], name)
    return rows
