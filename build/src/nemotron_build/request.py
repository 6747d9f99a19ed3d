"""A question to the planner: a model on a GPU, so many requests of such a length; the answer, and what else fits.

Every alternative was planned with the same planner before it is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from nemotron_build.choice import Choice
from nemotron_build.errors import RefusedError
from nemotron_build.planning.gpus import Gpu, find_gpu, gpu_names
from nemotron_build.planning.planner import DEFAULT_CONCURRENCY, MemoryPlan, plan
from nemotron_build.precisions import AUTO

_SHORTEST_LENGTH = 16


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """What to ask for instead: the `options` to change, and the plan they give."""

    options: Mapping[str, str]
    plan: MemoryPlan

    def __str__(self) -> str:
        unverified = " (unverified)" if self.plan.decision.warnings else ""
        return " ".join(f"{option} {value}" for option, value in self.options.items()) + unverified


@dataclass(frozen=True, kw_only=True)
class PlanRequest(Choice):
    """A question to the planner: so many requests at once, of so many tokens."""

    max_seq_len: int | None = None
    concurrency: int = DEFAULT_CONCURRENCY

    def answer(self) -> MemoryPlan:
        """The plan; `RefusedError` where the parts do not go together."""
        decision = self.decide()
        return plan(self.gpu, self.architecture, decision, max_seq_len=self.max_seq_len, concurrency=self.concurrency)

    def alternatives(self) -> list[Alternative]:
        """What would fit instead: a shorter context, fewer requests, smaller caches or weights, another GPU."""
        answer = self.answer()
        candidates = []
        if answer.max_seq_len >= _SHORTEST_LENGTH:
            candidates.append(self._alternative(max_seq_len=answer.max_seq_len))
        if answer.max_concurrency:
            candidates.append(self._alternative(concurrency=answer.max_concurrency))
        candidates += islice(self._smaller(answer), 3)
        candidates += [self._on(find_gpu(name)) for name in gpu_names() if name != self.gpu.name]
        return [candidate for candidate in candidates if candidate]

    def _smaller(self, answer: MemoryPlan) -> Iterator[Alternative]:
        """Smaller KV cache, then smaller weights, then both."""
        bits = answer.decision.precision.storage.bits
        weights = self.precisions.weights.values()
        lighter = sorted((row for row in weights if row.storage.bits < bits), key=lambda row: -row.storage.bits)
        kept_kv = {} if self.kv_precision == AUTO else {"kv_precision": self.kv_precision}
        changes = [
            *({"kv_precision": kv.name} for kv in self.precisions.kv.values() if kv.quantized),
            *({"precision": row.name} | kept_kv for row in lighter),
            *({"precision": row.name, "kv_precision": "fp8"} for row in lighter),
        ]
        for change in changes:
            alternative = self._alternative(**change)
            if alternative and alternative.plan.kv_bytes_per_token <= answer.kv_bytes_per_token:
                yield alternative

    def _on(self, gpu: Gpu) -> Alternative | None:
        """The same on *gpu*; where that does not fit, with an FP8 cache, then with what is recommended there."""
        if gpu.sm is None:
            return None
        for change in ({}, {"kv_precision": "fp8"}, {"precision": AUTO, "kv_precision": AUTO}):
            if alternative := self._alternative(gpu=gpu, **change):
                return alternative
        return None

    def _alternative(self, **changes: Any) -> Alternative | None:
        """The plan with *changes*, if it can be built and fits."""
        try:
            answer = replace(self, **changes).answer()
        except RefusedError:
            return None
        if not answer.fits:
            return None
        settled = {"gpu": answer.gpu.name, "precision": answer.decision.precision.name}
        options = {
            "--" + name.replace("_", "-"): settled.get(name, str(value))
            for name, value in changes.items()
            if value != getattr(self, name)
        }
        return Alternative(options=options, plan=answer)
