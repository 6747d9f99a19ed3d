"""Checks commands and settings against what NVIDIA's tools and runtimes accept (`data/*_contract.json`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nemotron_build.commands import trtllm_build
from nemotron_build.commands.limits import Limits
from nemotron_build.commands.llm_api import LlmCall
from nemotron_build.precisions import PRECISIONS, KvPrecision

_DATA = Path(__file__).parents[1] / "data"
CONTRACT: dict[str, Any] = json.loads((_DATA / "trtllm_contract.json").read_text())
# The runtimes' classes and bindings, which requests are checked against.
RUNTIME: dict[str, Any] = json.loads((_DATA / "runtime_contract.json").read_text())
BUILD = CONTRACT["trtllm_build"]
EDGE = CONTRACT["edge_llm"]["commands"]


class BreachError(AssertionError):
    """A command or a setting that the tool would not accept."""


def check_argv(argv: Sequence[str], command: str, flags: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The value of each flag of *command* in *argv*; `BreachError` for anything its parser would refuse."""
    words = command.split()
    if list(argv[: len(words)]) != words:
        raise BreachError(f"{argv[: len(words)]} is not {command}")
    names = {alias: name for name, flag in flags.items() for alias in (name, *flag.get("aliases", ()))}
    positionals = [name for name, flag in flags.items() if flag["type"] == "positional"]
    values: dict[str, str] = {}
    rest = list(argv[len(words) :])
    while rest:
        word = rest.pop(0)
        if not isinstance(word, str):
            raise BreachError(f"{word!r} is no string")
        if not word.startswith("-"):
            if not positionals:
                raise BreachError(f"{word} has no flag")
            values[positionals.pop(0)] = word
            continue
        if word not in names:
            raise BreachError(f"{command} has no {word}")
        name = names[word]
        if name in values:
            raise BreachError(f"{name} is given twice")
        if flags[name].get("deprecated"):
            raise BreachError(f"{name} is deprecated")
        values[name] = "" if flags[name]["type"] == "flag" else _value(name, flags[name], rest)
    missing = positionals + [name for name, flag in flags.items() if flag.get("required") and name not in values]
    if missing:
        raise BreachError(f"{command} needs {', '.join(missing)}")
    return values


def _value(name: str, flag: Mapping[str, Any], rest: list[str]) -> str:
    if not rest or rest[0].startswith("--"):
        raise BreachError(f"{name} has no value")
    value = rest.pop(0)
    if flag["type"] == "int" and not value.lstrip("-").isdecimal():
        raise BreachError(f"{name} is {value}, not a number")
    if "choices" in flag and value not in [str(choice) for choice in flag["choices"]]:
        raise BreachError(f"{name} is {value}, not one of {flag['choices']}")
    return value


def check_trtllm_build(argv: Sequence[str], precision: str, kv_precision: str, sm: int) -> dict[str, str]:
    """`check_argv`, and the rules between flags that trtllm-build enforces or silently applies."""
    values = check_argv(argv, "trtllm-build", BUILD["flags"])
    for required in ("--checkpoint_dir", "--output_dir"):
        if required not in values:
            raise BreachError(f"{required} is missing")
    for rule in BUILD["exclusive"]:
        if all(flag in values and value in (None, values[flag]) for flag, value in rule):
            raise BreachError(f"{' and '.join(flag for flag, _ in rule)} exclude each other")
    for flag, value in BUILD["refused"]:
        if values.get(flag) == value:
            raise BreachError(f"{flag} {value} is refused")
    if sm == 100:
        for flag, off in BUILD["refused_on_sm_100"].items():
            if values.get(flag, off) != off:
                raise BreachError(f"{flag} raises NotImplementedError on SM 100")
    if values["--use_fused_mlp"] == "enable" and precision not in BUILD["fused_mlp_precisions"]:
        raise BreachError("--use_fused_mlp would be turned off")
    fp8_attention = values["--use_fp8_context_fmha"] == "enable"
    if fp8_attention and (precision not in BUILD["fp8_context_attention_precisions"] or sm < 89):
        raise BreachError("--use_fp8_context_fmha would be turned off")
    if values["--use_paged_context_fmha"] == "enable":
        if kv_precision == "int8":
            raise BreachError("--use_paged_context_fmha does not go with an INT8 KV cache")
        if fp8_attention != (kv_precision == "fp8"):
            raise BreachError("with paged attention, FP8 attention and an FP8 KV cache go together")
    return values


Types = Mapping[str, tuple[type, ...]]
_JSON_TYPES: Types = {
    "str": (str,),
    "Path": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "None": (type(None),),
    "dict": (dict,),
}


def check_llm_arguments(kind: str, arguments: Mapping[str, Any]) -> None:
    """`BreachError` for an argument that TensorRT-LLM 1.2.1's LLM API would not accept, nested ones included."""
    api = CONTRACT["llm_api"]
    check_fields(arguments, api[kind], kind)
    for name in ("kv_cache_config", "scheduler_config", "cuda_graph_config"):
        if name in arguments:
            check_fields(arguments[name], api[name], name)
    if kind == "tensorrt" and arguments["kv_cache_config"].get("dtype", "auto") != api["tensorrt_kv_dtype"]:
        raise BreachError("kv_cache_config.dtype must stay auto")


def check_fields(
    values: Mapping[str, Any], fields: Mapping[str, Mapping[str, Any]], where: str, types: Types | None = None
) -> None:
    """`BreachError` for a value that *fields* do not have in 1.2.1; *types* are by name, those of JSON by default."""
    for name, value in values.items():
        if name not in fields:
            raise BreachError(f"{where} has no {name}")
        field = fields[name]
        if any(field.get(mark) for mark in ("unverified", "not_in", "deprecated")):
            raise BreachError(f"{where}.{name} is not verified for 1.2.1")
        if field.get("choices") and value not in field["choices"]:
            raise BreachError(f"{where}.{name} is {value!r}, not one of {field['choices']}")
        kinds = field["type"].split("|")
        # In JSON a class is given as the mapping of its fields.
        expected = tuple(
            kind for name in kinds for kind in (_JSON_TYPES.get(name, (dict,)) if types is None else types[name])
        )
        if not isinstance(value, expected) or (isinstance(value, bool) and "bool" not in kinds):
            raise BreachError(f"{where}.{name} is {value!r}, not {field['type']}")
    missing = [name for name, field in fields.items() if field.get("required") and name not in values]
    if missing:
        raise BreachError(f"{where} needs {', '.join(missing)}")


def kv_row(kv_precision: str) -> KvPrecision:
    """The row of *kv_precision*; `auto` is 16 bit."""
    return PRECISIONS.find_kv("bf16" if kv_precision == "auto" else kv_precision)


def build_argv(precision: str = "bf16", kv_precision: str = "auto", **changes: Any) -> list[str]:
    """A command as a plan for a small GPU contains it."""
    return trtllm_build.trtllm_build_argv(
        checkpoint_dir="/data/checkpoint",
        output_dir="/data/engine",
        timing_cache="/data/timing.cache",
        precision=PRECISIONS.weights[precision],
        kv=kv_row(kv_precision),
        limits=limits(**changes),
    )


def limits(**changes: int) -> Limits:
    """Limits as a plan for a small GPU contains them."""
    defaults = {"max_batch_size": 16, "max_input_len": 8000, "max_seq_len": 8192, "max_num_tokens": 4096}
    return Limits(**defaults | changes)


def llm_arguments(kind: str = "pytorch", kv_precision: str = "auto", **changes: Any) -> dict[str, Any]:
    """Arguments as a plan for a small GPU contains them."""
    settings: dict[str, Any] = {
        "model": "/bundle/engine",
        "tokenizer": "/bundle/tokenizer",
        "limits": limits(max_num_tokens=8192),
        "free_gpu_memory_fraction": 0.85,
        "chunks_prompts": True,
        "kv": kv_row(kv_precision),
    }
    call = LlmCall(**{**settings, **changes})
    return call.on_engine() if kind == "tensorrt" else call.on_checkpoint()
