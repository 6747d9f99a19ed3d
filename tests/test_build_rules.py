"""Every cell of the precision table: allowed, allowed with a warning, or refused with what works instead."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from nemotron_build.architecture import Dimensions, read_architecture
from nemotron_build.choice import Choice
from nemotron_build.errors import RefusedError, SettingError
from nemotron_build.kinds import KIND_NAMES, find_kind
from nemotron_build.planning.gpus import find_gpu, gpu_names
from nemotron_build.precisions import PRECISION_NAMES, PRECISIONS
from nemotron_triton.chat.profiles import profile

FACTS: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "precision_by_sm.json").read_text())
GPUS = ("a10g", "l40s", "h100", "jetson-thor", "a100", "rtx-5090", "cpu")
LLAMA, HYBRID = "llama-nemotron-nano-4b-v1.1", "nemotron-3-nano-4b"


def architecture(model: str) -> Dimensions:
    return read_architecture(profile(model).architecture)


def expected(gpu: str, model: str, kind: str, precision: str, kv_precision: str) -> str:
    """The verdict by the facts."""
    sm = str(find_gpu(gpu).sm)
    if kind == "cpu":
        can = sm == "None" and model == LLAMA and precision in ("bf16", "fp16", "int8-wo", "int4-wo")
        return "allowed" if can and kv_precision == "bf16" else "refused"
    if kind == "edge":
        table = FACTS.get(sm, {}).get("edge", {})  # What Edge-LLM does not list it has no flag for.
    else:
        table = dict.fromkeys((*PRECISION_NAMES, "kv-fp8", "kv-int8"), "no") | FACTS.get(sm, {}).get(kind, {})
    cells = {table.get(precision, "no")} | (
        {table.get(f"kv-{kv_precision}", "no")} if kv_precision != "bf16" else set()
    )
    # No tool writes these as a Hugging Face checkpoint, whatever the backend could compute.
    absent = kind == "pytorch" and precision in ("int8-sq", "int4-wo")
    if "no" in cells or absent or (kind, model) == ("tensorrt", HYBRID):
        return "refused"
    if model == HYBRID and precision in ("int4-awq", "w4a8-awq"):
        return "refused"  # Blocks of 128 do not divide 3136.
    unproven = (kind, model) in {("pytorch", HYBRID), ("edge", LLAMA)}
    return "warning" if unproven or cells & {"unverified", "not_listed"} else "allowed"


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("model", [LLAMA, HYBRID])
@pytest.mark.parametrize("kind", KIND_NAMES)
def test_every_cell_is_as_the_facts_say(gpu: str, model: str, kind: str) -> None:
    shape, target = architecture(model), find_gpu(gpu)
    cells, facts, refusals = {}, {}, []
    for precision, kv_precision in itertools.product(PRECISION_NAMES, ("bf16", "fp8", "int8")):
        cell = f"{precision}, KV {kv_precision}"
        facts[cell] = expected(gpu, model, kind, precision, kv_precision)
        try:
            decision = Choice(
                gpu=target, architecture=shape, precision=precision, kv_precision=kv_precision, kind=kind
            ).decide()
            cells[cell] = "warning" if decision.warnings else "allowed"
        except RefusedError as error:
            cells[cell] = "refused"
            refusals.append((precision, kv_precision, error))

    assert cells == facts
    for precision, kv_precision, refusal in refusals:
        assert refusal.reason
        assert refusal.suggestion
        flags: dict[str, Any] = {"kind": kind, "precision": precision, "kv_precision": kv_precision} | _arguments(
            refusal.suggestion
        )
        Choice(gpu=find_gpu(refusal.suggestion.get("--gpu", gpu)), architecture=shape, **flags).decide()


@pytest.mark.parametrize(
    ("gpu", "model", "flags", "reason", "suggestion"),
    [
        ("a10g", LLAMA, {"precision": "fp8"}, "FP8 arithmetic starts at SM89", {"--precision": "int8-sq"}),
        ("h100", LLAMA, {"precision": "nvfp4"}, "FP4 arithmetic starts at SM100", {"--precision": "int4-awq"}),
        ("jetson-thor", HYBRID, {"precision": "int4-awq"}, "blocks of 128 weights", {"--precision": "nvfp4"}),
        ("jetson-thor", LLAMA, {"precision": "bf16"}, "computes in fp16", {"--precision": "fp16"}),
        ("jetson-thor", LLAMA, {"kind": "tensorrt"}, "does not support NVIDIA Jetson Thor", {"--engine-kind": "edge"}),
        ("jetson-thor", LLAMA, {"kv_precision": "int8"}, "only quantised KV cache", {"--kv-precision": "fp8"}),
        ("h100", HYBRID, {"kind": "tensorrt"}, "never had a TensorRT engine path", {"--engine-kind": "pytorch"}),
        ("h100", LLAMA, {"kind": "edge"}, "for Jetson Thor only", {"--engine-kind": "tensorrt"}),
        ("cpu", HYBRID, {}, "Llama family only", {"--gpu": "a10g"}),
        (
            "a10g",
            HYBRID,
            {"kind": "tensorrt", "precision": "int4-awq"},
            "never had",
            {"--engine-kind": "pytorch", "--precision": "bf16"},
        ),
    ],
)
def test_a_refusal_names_the_nearest_that_works(
    gpu: str, model: str, flags: dict[str, Any], reason: str, suggestion: dict[str, str]
) -> None:
    with pytest.raises(RefusedError, match=reason) as caught:
        Choice(gpu=find_gpu(gpu), architecture=architecture(model), **flags).decide()

    assert caught.value.suggestion == suggestion
    assert all(f"{option} {value}" in str(caught.value) for option, value in suggestion.items())


@pytest.mark.parametrize(
    ("gpu", "model", "chosen"),
    [
        ("a10g", LLAMA, ("tensorrt", "int4-awq", "bf16")),
        ("l40s", LLAMA, ("tensorrt", "fp8", "fp8")),
        ("h100", LLAMA, ("tensorrt", "fp8", "fp8")),
        ("rtx-5090", LLAMA, ("tensorrt", "nvfp4", "fp8")),
        ("jetson-thor", LLAMA, ("edge", "nvfp4", "fp8")),
        ("cpu", LLAMA, ("cpu", "int8-wo", "fp16")),
        ("a10g", HYBRID, ("pytorch", "bf16", "bf16")),
        ("h100", HYBRID, ("pytorch", "fp8", "fp8")),
        ("jetson-thor", HYBRID, ("edge", "nvfp4", "fp8")),
    ],
)
def test_auto_picks_the_recommended_and_says_why(gpu: str, model: str, chosen: tuple[str, str, str]) -> None:
    decision = Choice(gpu=find_gpu(gpu), architecture=architecture(model)).decide()

    assert (decision.kind.name, decision.precision.name, decision.kv_precision) == chosen
    assert decision.why[0].startswith(f"precision {chosen[1]}, the first of ")
    assert any(line.startswith("KV cache in ") for line in decision.why)


def test_16_bit_is_the_type_that_the_engine_computes_in() -> None:
    kv_precisions = [
        Choice(gpu=find_gpu(gpu), architecture=architecture(LLAMA), precision=precision, kv_precision=kv)
        .decide()
        .kv_precision
        for gpu, precision, kv in (("h100", "fp8", "fp16"), ("h100", "fp16", "bf16"), ("jetson-thor", "fp8", "bf16"))
    ]

    assert kv_precisions == ["bf16", "fp16", "fp16"]


def test_notes_are_no_warnings() -> None:
    ada = Choice(gpu=find_gpu("l40s"), architecture=architecture(LLAMA), precision="fp8").decide()
    smooth = Choice(gpu=find_gpu("a10g"), architecture=architecture(LLAMA), precision="int8-sq").decide()

    assert (ada.warnings, smooth.warnings) == ((), ())
    assert "FP8 context attention failed on Ada" in ada.notes[0]
    assert "unsupported" in smooth.notes[0]


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"precision": "fp3"}, "--precision fp3 does not exist; known: auto, bf16"),
        ({"kv_precision": "fp3"}, "--kv-precision fp3 does not exist; known: auto, bf16"),
        ({"kind": "onnx"}, "--engine-kind onnx does not exist; known: tensorrt"),
    ],
)
def test_unknown_names_are_one_line(flags: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint):
        Choice(gpu=find_gpu("h100"), architecture=architecture(LLAMA), **flags).decide()


def test_every_gpu_has_an_engine_kind_for_llama() -> None:
    kinds = {
        name: Choice(gpu=find_gpu(name), architecture=architecture(LLAMA)).decide().kind.name for name in gpu_names()
    }

    assert {kind for name, kind in kinds.items() if name not in ("jetson-thor", "cpu")} == {"tensorrt"}


def _arguments(suggestion: dict[str, str]) -> dict[str, str]:
    names = {"--precision": "precision", "--kv-precision": "kv_precision", "--engine-kind": "kind"}
    return {names[option]: value for option, value in suggestion.items() if option in names}


@pytest.mark.parametrize("precision", [name for name, row in PRECISIONS.weights.items() if row.support("pytorch").sms])
def test_a_pytorch_engine_requires_the_lowest_sm_that_its_precision_is_known_for(precision: str) -> None:
    known = [int(sm) for sm, kinds in FACTS.items() if sm != "about" and kinds["pytorch"][precision] != "no"]

    required = {
        find_kind("pytorch").required_sm(find_gpu(gpu).sm, PRECISIONS.find(precision, "pytorch"))
        for gpu in ("h100", "a10g")
    }

    assert required == {min(known)}


@pytest.mark.parametrize(
    ("kind", "gpu", "sm"), [("tensorrt", "h100", 90), ("edge", "jetson-thor", 110), ("cpu", "cpu", None)]
)
def test_a_compiled_engine_requires_the_sm_that_it_is_compiled_for(kind: str, gpu: str, sm: int | None) -> None:
    required = find_kind(kind).required_sm(find_gpu(gpu).sm, PRECISIONS.find("bf16", kind))

    assert required == sm
