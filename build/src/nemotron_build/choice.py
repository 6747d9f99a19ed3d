"""Every open choice of a build settled by the rules, or refused with the nearest combination that works. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from nemotron_build.architecture import Dimensions
from nemotron_build.errors import RefusedError, UnsupportedError
from nemotron_build.kinds import KIND_NAMES, KINDS, EngineKind, find_kind
from nemotron_build.planning.gpus import Gpu, find_gpu, gpu_names
from nemotron_build.planning.kind import Finding, Kind
from nemotron_build.planning.rules import Combination, Decision
from nemotron_build.precisions import AUTO, PRECISIONS, Precision, Precisions


def kinds_on(gpu: Gpu) -> list[EngineKind]:
    """The engine kinds that are made for *gpu*, the preferred first; `UnsupportedError` when there is none."""
    if kinds := [kind for kind in KINDS if gpu.sm in kind.sms]:
        return kinds
    raise UnsupportedError(f"no engine kind is known for {gpu}")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is asked for, in the words of the command line: `kind` None is the default for GPU and model."""

    gpu: Gpu
    architecture: Dimensions
    precision: str = AUTO
    kv_precision: str = AUTO
    kind: str | None = None
    precisions: Precisions = PRECISIONS

    def decide(self) -> Decision:
        """Settle what is left open.

        `RefusedError` gives the reason and the nearest combination that works, `UnsupportedError` is for unknown names.
        """
        combination, why = self.settle()
        findings = list(combination.findings())
        if reasons := _texts(findings, "refused"):
            raise RefusedError(reasons[0], _nearest(self))
        return Decision(
            kind=combination.kind,
            precision=combination.precision,
            kv=combination.kv,
            warnings=_texts(findings, "warning"),
            notes=_texts(findings, "note"),
            why=why,
        )

    def settle(self) -> tuple[Combination, tuple[str, ...]]:
        """The combination that is meant, possible or not, and how each open choice was settled."""
        combination, why = self._weights(self._kind())
        if self.kv_precision != AUTO:
            kv = self.precisions.find_kv(self.kv_precision)
            return replace(combination, kv=kv if kv.quantized else combination.kv), why
        in_fp8 = replace(combination, kv=self.precisions.kv["fp8"])
        same = list(in_fp8.findings()) == list(combination.findings())
        if same and combination.precision.arithmetic in ("fp8", "fp4"):
            return in_fp8, (*why, f"KV cache in fp8, as the weights are {combination.precision.name}")
        name = combination.kv.name
        return combination, (*why, f"KV cache in {name}: fp8 by default only beside fp8 and fp4 weights")

    def _weights(self, kind: Kind) -> tuple[Combination, tuple[str, ...]]:
        """The combination with a 16-bit KV cache; `auto` is the first precision that nothing speaks against."""
        if self.precision != AUTO:
            return self._in_16_bit(kind, self.precisions.find(self.precision, kind.name)), ()
        names = self.precisions.recommended[kind.name]
        passed_over: list[str] = []
        for name in names:
            combination = self._in_16_bit(kind, self.precisions.find(name, kind.name))
            findings = combination.findings()
            against = [finding.text for finding in findings if finding.level == "refused" or finding.unproven]
            if not against:
                break
            passed_over.append(against[0])
        chosen = f"precision {name}, the first of {', '.join(names)} that is listed as supported"
        return combination, (chosen, *passed_over)

    def _kind(self) -> Kind:
        if self.kind is not None:
            return find_kind(self.kind)
        kinds = kinds_on(self.gpu)
        return next((kind for kind in kinds if self.architecture.model_type in kind.model_types), kinds[0])

    def _in_16_bit(self, kind: Kind, precision: Precision) -> Combination:
        return Combination(
            gpu=self.gpu,
            architecture=self.architecture,
            kind=kind,
            precision=precision,
            kv=self.precisions.kv[kind.computes_in(precision)],
        )


def _texts(findings: list[Finding], level: str) -> tuple[str, ...]:
    return tuple(finding.text for finding in findings if finding.level == level)


def _nearest(choice: Choice) -> dict[str, str]:
    """The options to change in *choice* for something that works: as few as can be, listed cells before unverified."""
    others = (find_gpu(name) for name in gpu_names() if name != choice.gpu.name)
    for gpu in (choice.gpu, *others):
        if nearest := min(_changes(replace(choice, gpu=gpu)), default=None, key=lambda change: change[0]):
            return ({} if gpu is choice.gpu else {"--gpu": gpu.name}) | nearest[1]
    return {}


def _changes(choice: Choice) -> Iterator[tuple[tuple[int, ...], dict[str, str]]]:
    """Every change of kind, precision and KV precision that makes *choice* possible, with its cost."""
    weights = choice.precisions.weights
    bits = weights[choice.precision].storage.bits if choice.precision in weights else 0
    nearest_bits = sorted(weights, key=lambda name: abs(weights[name].storage.bits - bits) if bits else 0)
    kinds = [choice.kind, *(name for name in KIND_NAMES if name != choice.kind)]
    precisions = [choice.precision, *nearest_bits]
    kv_precisions = [choice.kv_precision, *(["fp8"] if choice.kv_precision == "int8" else []), AUTO]
    for candidate in itertools.product(enumerate(kinds), enumerate(precisions), enumerate(kv_precisions)):
        (kind_at, kind), (precision_at, precision), (kv_at, kv_precision) = candidate
        combination, _ = replace(choice, kind=kind, precision=precision, kv_precision=kv_precision).settle()
        findings = list(combination.findings())
        if _texts(findings, "refused"):
            continue
        changes = {} if kind is None or not kind_at else {"--engine-kind": kind}
        changes |= {"--precision": precision} if precision_at else {}
        changes |= {"--kv-precision": kv_precision} if kv_at else {}
        unproven = sum(finding.unproven for finding in findings)
        cost = 4 * bool(kind_at) + 2 * bool(precision_at) + bool(kv_at)
        yield (cost, unproven, kind_at, precision_at, kv_at), changes
