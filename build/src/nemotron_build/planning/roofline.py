"""How fast a GPU can be at most: bytes to read against bandwidth, operations against the dense rate.

Upper bounds from data sheets, not predictions: published figures reach half to two thirds of them at batch 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from nemotron_build.architecture import Dimensions
from nemotron_build.planning.gpus import Gpu
from nemotron_build.planning.rules import Decision
from nemotron_build.planning.weights import weight_bytes


@dataclass(frozen=True, kw_only=True)
class DecodeBound:
    """One decoding step of `concurrency` sequences that hold `context_tokens` each.

    bytes_per_step = weights read once + concurrency x (KV cache of the context + recurrent state read and written);
    seconds_per_step = max(bytes_per_step / bandwidth, operations_per_step / dense rate);
    tokens_per_second = concurrency / seconds_per_step, over all sequences.
    """

    concurrency: int
    context_tokens: int
    bytes_per_step: int
    operations_per_step: int
    seconds_per_step: float
    tokens_per_second: float
    bound_by: str


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """The bounds of one plan, and the terms they are made of (bytes, bytes/s, operations/s).

    `prefill_tokens_per_second` = dense rate / (2 x values of the linear layers), None where the rate is not known; it
    leaves out attention over the prompt, and the head, which only the last token needs.
    """

    bandwidth: float
    arithmetic: str
    dense_rate: float | None
    weights_read_bytes: int
    kv_bytes_per_token: int
    state_read_write_bytes: int
    operations_per_token: int
    batch_1_empty: DecodeBound
    batch_1_full: DecodeBound
    asked: DecodeBound
    prefill_tokens_per_second: float | None


def roofline(
    gpu: Gpu, architecture: Dimensions, decision: Decision, *, concurrency: int, context_tokens: int
) -> Roofline | None:
    """The bounds on *gpu*, or None where its bandwidth is not known."""
    if gpu.bandwidth is None:
        return None
    precision = decision.precision
    bandwidth, rate = gpu.bandwidth, gpu.rates[precision.arithmetic]
    linear = sum(weight.values for weight in architecture.weights().values() if weight.role == "linear")
    head = architecture.vocab_size * architecture.hidden_size
    weights_read = weight_bytes(architecture, precision).read_per_step
    kv_bytes = architecture.kv_values_per_token * decision.kv.bits // 8
    state = 2 * architecture.state_bytes_per_sequence()

    def decode(concurrency: int, context_tokens: int) -> DecodeBound:
        read = weights_read + concurrency * (kv_bytes * context_tokens + state)
        operations = 2 * concurrency * (linear + head)
        seconds = {"bandwidth": read / bandwidth, "arithmetic": operations / rate if rate else 0.0}
        bound_by = max(seconds, key=lambda term: seconds[term])
        return DecodeBound(
            concurrency=concurrency,
            context_tokens=context_tokens,
            bytes_per_step=read,
            operations_per_step=operations,
            seconds_per_step=seconds[bound_by],
            tokens_per_second=concurrency / seconds[bound_by],
            bound_by=bound_by,
        )

    return Roofline(
        bandwidth=bandwidth,
        arithmetic=precision.arithmetic,
        dense_rate=rate,
        weights_read_bytes=weights_read,
        kv_bytes_per_token=kv_bytes,
        state_read_write_bytes=state,
        operations_per_token=2 * (linear + head),
        batch_1_empty=decode(1, 0),
        batch_1_full=decode(1, context_tokens),
        asked=decode(concurrency, context_tokens),
        prefill_tokens_per_second=rate / (2 * linear) if rate else None,
    )
