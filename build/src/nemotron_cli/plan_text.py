"""Plans as JSON documents and as tables. Lays out what the planner decided; computes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import click

from nemotron_build.errors import RefusedError
from nemotron_build.planning.planner import MemoryPlan, Settings, gib
from nemotron_build.planning.roofline import Roofline
from nemotron_build.request import Alternative, PlanRequest
from nemotron_cli.tables import Table
from nemotron_cli.terminal import styled


@dataclass(frozen=True, kw_only=True)
class PlanDocument:
    """A plan, or why there is none, as `--json` prints it; what was not decided is null."""

    fits: bool
    status: Literal["allowed", "warning", "refused"]
    reason: str
    suggestion: Mapping[str, str] | None = None
    model: str
    gpu: str
    sm: int | None
    engine_kind: str | None
    precision: str
    kv_precision: str
    parameters: int
    weights_bytes: int | None = None
    kv_bytes_per_token: int | None = None
    state_bytes_per_sequence: int | None = None
    asked: Mapping[str, int | None]
    max_seq_len: int | None = None
    max_concurrency: int | None = None
    tokens_per_second_bound: float | None = None
    settings: Settings | None = None
    memory: Mapping[str, Any] | None = None
    roofline: Roofline | None = None
    roofline_reason: str | None = None
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    why: Sequence[str] = ()
    suggestions: Sequence[Mapping[str, Any]] = ()


def plan_document(model: str, plan: MemoryPlan, alternatives: Sequence[Alternative]) -> PlanDocument:
    """*plan* as a document."""
    memory = asdict(plan.memory)
    del memory["weights"]["tied"]
    decision = plan.decision
    return PlanDocument(
        fits=plan.fits,
        status="warning" if decision.warnings else "allowed",
        reason=plan.reason,
        model=model,
        gpu=plan.gpu.name,
        sm=plan.gpu.sm,
        engine_kind=decision.kind.name,
        precision=decision.precision.name,
        kv_precision=decision.kv_precision,
        parameters=plan.parameters,
        weights_bytes=plan.weights_bytes,
        kv_bytes_per_token=plan.kv_bytes_per_token,
        state_bytes_per_sequence=plan.state_bytes_per_sequence,
        asked={"max_seq_len": plan.asked_seq_len, "concurrency": plan.concurrency},
        max_seq_len=plan.max_seq_len,
        max_concurrency=plan.max_concurrency,
        tokens_per_second_bound=plan.tokens_per_second_bound,
        settings=plan.settings,
        memory=memory,
        roofline=plan.roofline,
        roofline_reason=plan.roofline_reason,
        warnings=decision.warnings,
        notes=decision.notes,
        why=decision.why,
        suggestions=[
            {
                "options": alternative.options,
                "max_seq_len": alternative.plan.max_seq_len,
                "max_concurrency": alternative.plan.max_concurrency,
                "warnings": alternative.plan.decision.warnings,
            }
            for alternative in alternatives
        ],
    )


def refusal_document(model: str, request: PlanRequest, error: RefusedError) -> PlanDocument:
    """The document of a combination that cannot be built."""
    return PlanDocument(
        fits=False,
        status="refused",
        reason=error.reason,
        suggestion=error.suggestion,
        model=model,
        gpu=request.gpu.name,
        sm=request.gpu.sm,
        engine_kind=request.kind,
        precision=request.precision,
        kv_precision=request.kv_precision,
        parameters=request.architecture.parameters,
        asked={"max_seq_len": request.max_seq_len, "concurrency": request.concurrency},
        suggestions=[{"options": error.suggestion}] if error.suggestion else [],
    )


def print_json(document: PlanDocument | Sequence[PlanDocument]) -> None:
    """*document*, or a list of them, as JSON on stdout."""
    values = asdict(document) if isinstance(document, PlanDocument) else [asdict(row) for row in document]
    click.echo(json.dumps(values, indent=2))


def print_plan(model: str, plan: MemoryPlan, alternatives: Sequence[Alternative]) -> None:
    """*plan* for people, on stdout."""
    decision, memory = plan.decision, plan.memory
    made = f"{decision.kind} engine, {decision.precision.name} weights, {decision.kv_precision} KV cache"
    click.echo(f"{model} on {plan.gpu}: {made}")
    click.echo(styled(f"{'fits' if plan.fits else 'does not fit'}: {plan.reason}", fg="green" if plan.fits else "red"))
    click.echo()
    sizes = Table("memory", "size", right=("size",))
    parts = {
        "usable": memory.total,
        "weights, quantised matrices": memory.weights.linear,
        "weights, scales": memory.weights.scales,
        "weights, embedding": memory.weights.embedding,
        "weights, head": memory.weights.head,
        "weights, other": memory.weights.other,
        "activations (estimate)": memory.activations,
        "runtime (estimate)": memory.runtime,
        "recurrent state": memory.state,
        "KV cache, at most": memory.kv_budget,
        "KV cache, as asked": memory.kv_needed,
    }
    for name, count in parts.items():
        sizes.add_row(name, gib(count))
    sizes.show()
    click.echo()
    state = f"recurrent state: {plan.state_bytes_per_sequence} bytes a request"
    click.echo(f"KV cache: {plan.kv_bytes_per_token} bytes a token; {state}")
    click.echo(f"longest context with {plan.concurrency} at once: {plan.max_seq_len} tokens")
    click.echo(f"most at once with {plan.asked_seq_len} tokens each: {plan.max_concurrency}")
    settings = (f"{name} {value}" for name, value in asdict(plan.settings).items() if value is not None)
    click.echo(f"settings: {', '.join(settings)}")
    if plan.roofline is None:
        click.echo(f"speed: no bound, {plan.roofline_reason}")
    else:
        click.echo("speed at most, tokens/s (from data sheets; expect half to two thirds):")
        for bound in (plan.roofline.batch_1_empty, plan.roofline.batch_1_full, plan.roofline.asked):
            batch = f"{bound.concurrency} x {bound.context_tokens} tokens of context"
            click.echo(f"  {bound.tokens_per_second:,.0f} with {batch}, {bound.bytes_per_step / 1e9:.2f} GB a step")
        if prefill := plan.roofline.prefill_tokens_per_second:
            click.echo(f"  {prefill:,.0f} reading prompts")
    for heading, lines in (("why", decision.why), ("note", decision.notes), ("warning", decision.warnings)):
        for line in lines:
            click.echo(styled(f"{heading}: {line}", fg="yellow" if heading == "warning" else None))
    for alternative in alternatives:
        click.echo(f"would fit: {alternative}")


def print_comparison(rows: Sequence[PlanDocument]) -> None:
    """A line for each GPU and precision, on stdout."""
    right = ("weights GiB", "most at once", "longest", "tokens/s at most")
    lines = Table("GPU", "precision", "KV", "engine", "", *right, "", right=right)
    last = None
    for row in rows:
        name = "" if row.gpu == last else row.gpu
        last = row.gpu
        if row.status == "refused":
            remedy = " ".join(f"{option} {value}" for option, value in (row.suggestion or {}).items())
            lines.add_row(name, row.precision, "", "", "refused", "", "", "", "", f"use {remedy}", dim=True)
            continue
        speed = row.tokens_per_second_bound
        lines.add_row(
            name,
            row.precision,
            row.kv_precision,
            row.engine_kind or "",
            "fits" if row.fits else "too big",
            f"{(row.weights_bytes or 0) / 2**30:.1f}",
            str(row.max_concurrency),
            str(row.max_seq_len),
            "" if speed is None else f"{speed:,.0f}",
            "unverified" if row.status == "warning" else "",
            fg=None if row.fits else "red",
        )
    lines.show()
