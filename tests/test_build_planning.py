"""What fits and how fast it can be: published numbers, and properties of every plan."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machines import FakeNvml
from nemotron_build.architecture import Architecture, Dimensions, HybridArchitecture, read_architecture
from nemotron_build.checkpoint import inspect
from nemotron_build.errors import BuildError, SettingError, UnsupportedError
from nemotron_build.gguf_file import write_gguf
from nemotron_build.kinds import KINDS, find_kind
from nemotron_build.planning.gpus import Gpu, find_gpu, gpu_names
from nemotron_build.planning.planner import MemoryPlan, plan
from nemotron_build.planning.rules import Decision
from nemotron_build.planning.weights import weight_bytes
from nemotron_build.precisions import PRECISION_NAMES, PRECISIONS
from nemotron_build.request import PlanRequest
from nemotron_triton.chat.profiles import profile


def architecture(name: str) -> Dimensions:
    return read_architecture(profile(name).architecture)


LLAMA, HYBRID = architecture("llama-nemotron-nano-4b-v1.1"), architecture("nemotron-3-nano-4b")


# Bounds at batch 1 from bandwidth alone, tokens/s: 600, 864, 3350 and 273 GB/s over the bytes read per token.
@pytest.mark.parametrize(
    ("model", "precision", "kv_precision", "context", "published"),
    [
        (LLAMA, "bf16", "bf16", 0, (73, 105, 407, 33)),
        (LLAMA, "fp8", "fp8", 0, (133, 191, 742, 61)),
        (LLAMA, "int4-awq", "bf16", 0, (222, 319, 1237, 101)),
        (LLAMA, "bf16", "bf16", 32768, (48, 69, 267, 22)),
        (LLAMA, "fp8", "fp8", 32768, (90, 130, 503, 41)),
        (LLAMA, "int4-awq", "fp8", 32768, (124, 178, 690, 56)),
        (HYBRID, "bf16", "bf16", 0, (82, 119, 460, 37)),
        (HYBRID, "fp8", "bf16", 0, (145, 209, 810, 66)),
        (HYBRID, "nvfp4", "bf16", 0, (218, 313, 1215, 99)),
    ],
)
def test_rooflines_are_those_derived_elsewhere(
    model: Dimensions, precision: str, kv_precision: str, context: int, published: tuple[int, ...]
) -> None:
    # Also where the rules refuse the pair: the bound follows from the bandwidth alone.
    decision = Decision(
        kind=find_kind("tensorrt"),
        precision=PRECISIONS.find(precision, "tensorrt"),
        kv=PRECISIONS.find_kv(kv_precision),
    )
    rates = []
    for gpu in ("a10g", "l40s", "h100", "jetson-thor"):
        bounds = plan(find_gpu(gpu), model, decision, max_seq_len=context or 8192, concurrency=1).roofline
        assert bounds
        rates.append((bounds.batch_1_full if context else bounds.batch_1_empty).tokens_per_second)

    # The published figures are whole numbers, which is up to 2.3 % of the smallest of them.
    assert rates == [pytest.approx(number, rel=0.02, abs=0.5) for number in published]


@pytest.mark.parametrize(
    ("model", "kv_precision", "kv_bytes"),
    [(LLAMA, "bf16", 131_072), (LLAMA, "fp8", 65_536), (HYBRID, "bf16", 16_384), (HYBRID, "fp8", 8_192)],
)
def test_a_token_takes_the_published_cache(model: Dimensions, kv_precision: str, kv_bytes: int) -> None:
    answer = PlanRequest(gpu=find_gpu("h100"), architecture=model, precision="fp8", kv_precision=kv_precision).answer()

    assert answer.kv_bytes_per_token == kv_bytes
    assert answer.parameters == model.parameters
    assert answer.state_bytes_per_sequence == (83_801_088 if model is HYBRID else 0)


def test_weights_are_counted_by_part() -> None:
    bf16, int4 = (weight_bytes(LLAMA, PRECISIONS.find(name, "tensorrt")) for name in ("bf16", "int4-awq"))

    assert bf16.total == 2 * 4_512_746_496
    assert (int4.embedding, int4.head, int4.other) == (bf16.embedding, bf16.head, bf16.other)
    assert int4.linear == bf16.linear // 4
    assert int4.scales == int4.linear * 2 // 128 * 2


@pytest.mark.parametrize("precision", ["bf16", "int8-wo", "int4-wo"])
def test_cpu_weights_are_what_the_engine_file_holds(tmp_path: Path, checkpoint: Path, precision: str) -> None:
    inspected = inspect(checkpoint)
    row = PRECISIONS.find(precision, "cpu")
    write_gguf(inspected, row, tmp_path / "model.gguf", name="demo", progress=lambda done, total: None)

    planned = weight_bytes(inspected.architecture, row).total

    # The file also holds the vocabulary.
    assert planned < (tmp_path / "model.gguf").stat().st_size < planned + 100_000


def test_32_long_requests_do_not_fit_an_a10g_and_the_plan_says_what_does() -> None:
    request = PlanRequest(gpu=find_gpu("a10g"), architecture=LLAMA, precision="bf16", max_seq_len=32768, concurrency=32)

    answer, alternatives = request.answer(), request.alternatives()

    assert not answer.fits
    assert "need 128.0 GiB of KV cache" in answer.reason
    assert {"--max-seq-len": "2784"} in [alternative.options for alternative in alternatives]
    assert {"--concurrency": "2"} in [alternative.options for alternative in alternatives]
    assert {"--gpu": "h100", "--precision": "fp8"} in [alternative.options for alternative in alternatives]
    assert all(alternative.plan.fits for alternative in alternatives)


def test_an_engine_that_keeps_logits_for_log_probabilities_pays_for_them() -> None:
    request = PlanRequest(gpu=find_gpu("h100"), architecture=LLAMA, precision="bf16", concurrency=16)
    kept, plain = (replace(request, kind=kind).answer().memory for kind in ("tensorrt", "pytorch"))

    assert kept.activations - plain.activations == 8 * 16 * LLAMA.vocab_size * 4


def test_a_smaller_cache_and_smaller_weights_are_offered_where_they_fit() -> None:
    request = PlanRequest(gpu=find_gpu("l40s"), architecture=LLAMA, precision="bf16", max_seq_len=8192, concurrency=33)

    options = [alternative.options for alternative in request.alternatives()]

    assert not request.answer().fits
    assert {"--kv-precision": "fp8"} in options
    assert {"--precision": "fp8"} in options


def test_settings_follow_from_the_plan() -> None:
    engine, edge = (
        PlanRequest(gpu=find_gpu(gpu), architecture=HYBRID, max_seq_len=4096, concurrency=4).answer().settings
        for gpu in ("h100", "thor")
    )

    assert (engine.max_batch_size, engine.max_seq_len, engine.max_num_tokens) == (4, 4096, 8192)
    assert engine.kv_cache_free_gpu_mem_fraction == 0.9
    assert (edge.max_num_tokens, edge.kv_cache_free_gpu_mem_fraction) == (4096, None)


def test_a_large_batch_is_bound_by_arithmetic() -> None:
    request = PlanRequest(gpu=find_gpu("a10g"), architecture=LLAMA, precision="bf16", max_seq_len=64, concurrency=256)

    bounds = request.answer().roofline

    assert bounds
    assert (bounds.batch_1_empty.bound_by, bounds.asked.bound_by) == ("bandwidth", "arithmetic")
    assert bounds.asked.tokens_per_second == pytest.approx(70e12 / (2 * (4_512_746_496 - 128256 * 3072)), rel=0.001)
    assert bounds.prefill_tokens_per_second == pytest.approx(70e12 / (2 * 3.7245e9), rel=0.001)


def test_a_cpu_has_no_roofline_and_says_why() -> None:
    answer = PlanRequest(gpu=find_gpu("cpu"), architecture=LLAMA).answer()

    assert answer.roofline is None
    assert answer.tokens_per_second_bound is None
    assert "differs from machine to machine" in str(answer.roofline_reason)
    assert answer.memory.total > 0


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"concurrency": 0}, "--concurrency is 0; at least 1 request must run"),
        ({"max_seq_len": -1}, "--max-seq-len is -1; no prompt fits"),
        ({"max_seq_len": 131073}, "--max-seq-len is 131073; the model goes up to 131072 tokens"),
    ],
)
def test_impossible_numbers_are_one_line(changes: dict[str, int], complaint: str) -> None:
    with pytest.raises(BuildError, match=complaint):
        PlanRequest(gpu=find_gpu("h100"), architecture=LLAMA, **changes).answer()  # type: ignore[arg-type]


sizes = st.integers(1, 16).map(lambda n: 64 * n)
llamas = st.builds(
    lambda hidden, layers, heads, vocab, tied: Architecture(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=64,
        intermediate_size=2 * hidden,
        vocab_size=vocab,
        rms_norm_eps=1e-5,
        rope_theta=1e4,
        rope_scaling=None,
        max_position_embeddings=100_000,
        tie_word_embeddings=tied,
    ),
    sizes,
    st.integers(1, 8),
    st.integers(1, 16),
    st.integers(100, 200_000),
    st.booleans(),
)
assert isinstance(HYBRID, HybridArchitecture)
models = st.one_of(llamas, st.just(LLAMA), st.just(HYBRID))
decisions = st.builds(
    lambda kind, precision, kv: Decision(
        kind=kind, precision=PRECISIONS.find(precision, kind.name), kv=PRECISIONS.find_kv(kv)
    ),
    st.sampled_from(KINDS),
    st.sampled_from(PRECISION_NAMES),
    st.sampled_from(["bf16", "fp8"]),
)
memories = st.integers(1 << 28, 1 << 38)


def on(memory_bytes: int) -> Gpu:
    return replace(find_gpu("a10g"), memory_bytes=memory_bytes)


def planned(memory: int, model: Dimensions, decision: Decision, seq_len: int, concurrency: int) -> MemoryPlan:
    return plan(on(memory), model, decision, max_seq_len=seq_len, concurrency=concurrency)


@given(memories, memories, models, decisions, st.integers(16, 100_000), st.integers(1, 9000))
def test_more_memory_never_fits_less(
    memory: int, other_memory: int, model: Dimensions, decision: Decision, seq_len: int, concurrency: int
) -> None:
    small, large = (planned(size, model, decision, seq_len, concurrency) for size in sorted((memory, other_memory)))

    assert small.fits <= large.fits
    assert small.max_concurrency <= large.max_concurrency
    assert small.max_seq_len <= large.max_seq_len


@given(memories, models, decisions, st.tuples(st.integers(16, 100_000), st.integers(16, 100_000)), st.integers(1, 300))
def test_longer_contexts_and_more_requests_never_fit_more(
    memory: int, model: Dimensions, decision: Decision, lengths: tuple[int, int], concurrency: int
) -> None:
    short, long = (planned(memory, model, decision, length, concurrency) for length in sorted(lengths))
    more = planned(memory, model, decision, min(lengths), concurrency + 1)

    assert short.fits >= long.fits
    assert short.max_concurrency >= long.max_concurrency
    assert short.fits >= more.fits
    assert short.max_seq_len >= more.max_seq_len


@given(memories, models, decisions, st.integers(16, 100_000), st.integers(1, 300))
def test_the_named_limits_are_the_limits(
    memory: int, model: Dimensions, decision: Decision, seq_len: int, concurrency: int
) -> None:
    answer = planned(memory, model, decision, seq_len, concurrency)

    assert answer.fits == (answer.max_concurrency >= concurrency)
    assert answer.fits <= (answer.max_seq_len >= seq_len)
    if answer.max_concurrency:
        assert planned(memory, model, decision, seq_len, answer.max_concurrency).fits
        assert not planned(memory, model, decision, seq_len, answer.max_concurrency + 1).fits
    if answer.max_seq_len >= 16:
        assert planned(memory, model, decision, answer.max_seq_len, concurrency).fits
    if 16 <= answer.max_seq_len < model.max_position_embeddings - 32:
        assert not planned(memory, model, decision, answer.max_seq_len + 32, concurrency).fits


@given(memories, models, decisions, st.integers(16, 100_000))
def test_a_smaller_cache_never_fits_less_and_is_never_slower(
    memory: int, model: Dimensions, decision: Decision, seq_len: int
) -> None:
    fp8, bf16 = (
        planned(memory, model, replace(decision, kv=PRECISIONS.find_kv(kv)), seq_len, 1) for kv in ("fp8", "bf16")
    )

    assert fp8.fits >= bf16.fits
    assert fp8.max_concurrency >= bf16.max_concurrency
    assert fp8.roofline
    assert bf16.roofline
    assert fp8.roofline.batch_1_full.tokens_per_second >= bf16.roofline.batch_1_full.tokens_per_second


def test_names_are_found_in_any_case_and_by_alias() -> None:
    assert [find_gpu(name).name for name in ("H100-SXM", "Thor", "A100-80GB", "rtx-4090")] == [
        "h100",
        "jetson-thor",
        "a100",
        "rtx-4090",
    ]


def test_an_unknown_gpu_is_one_line_with_a_suggestion() -> None:
    with pytest.raises(SettingError, match=r"--gpu h10 is not known; did you mean h100\? known: auto, a10g, l40s"):
        find_gpu("h10")


@pytest.mark.parametrize("name", gpu_names())
def test_every_number_has_its_source(name: str) -> None:
    gpu = find_gpu(name)

    assert set(gpu.sources) == {"memory", "bandwidth", "rates"}
    assert set(gpu.unverified) <= set(gpu.sources)
    assert set(gpu.rates) == {"bf16", "fp8", "int8", "int4", "fp4"}
    assert gpu.memory_bytes > 2**30
    assert (gpu.rates["fp8"] is None) == (gpu.sm is None or gpu.sm < 89)
    assert (gpu.rates["fp4"] is None) == (gpu.sm is None or gpu.sm < 100)


@pytest.mark.parametrize(
    ("seen", "name", "memory_bytes"),
    [
        (("NVIDIA H100 80GB HBM3", (9, 0), 85_520_809_984), "h100", 85_520_809_984),
        ((b"NVIDIA L40S", (8, 9), 48_305_799_168), "l40s", 48_305_799_168),
        (("NVIDIA GeForce RTX 5090", (12, 0), 34_190_917_632), "rtx-5090", 34_190_917_632),
        (("NVIDIA Thor", (11, 0), None), "jetson-thor", (125_771 - 8192) << 20),
    ],
)
def test_auto_is_the_gpu_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, seen: Any, name: str, memory_bytes: int
) -> None:
    nvml = FakeNvml(seen, seen)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)

    gpu = find_gpu("AUTO")

    assert (gpu.name, gpu.memory_bytes, nvml.open) == (name, memory_bytes, False)


@pytest.mark.parametrize(
    ("nvml", "complaint"),
    [
        (None, "nvidia-ml-py is not installed here, without which no GPU is seen; name the GPU: a10g"),
        (FakeNvml(fails="nvmlInit"), "has no NVIDIA driver .NVML Shared Library Not Found.; name the GPU: a10g"),
        (FakeNvml(), "has an NVIDIA driver, but no GPU; name the GPU"),
        (FakeNvml(("NVIDIA T4", (7, 5), 1)), r"finds NVIDIA T4 .SM 75., which is not in the catalogue; .* a10g .SM86."),
        (FakeNvml(("NVIDIA L40S", (8, 9), 1), ("NVIDIA A10G", (8, 6), 1)), "several kinds of GPU here .NVIDIA A10G, N"),
    ],
    ids=["no-package", "no-driver", "no-gpu", "unknown", "several"],
)
def test_auto_without_a_known_gpu_is_one_line(
    monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml | None, complaint: str
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)

    with pytest.raises(UnsupportedError, match=complaint):
        find_gpu("auto")
