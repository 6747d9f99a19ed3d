"""How weights and KV cache can be stored, and each tool's word for it: the rows of `precisions.yaml`, read strictly.

A row holds all that depends on a precision, so that a new one is a new row. Sizes are those of the formats; what a
runtime pads or keeps twice is not in them.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from nemotron_build.architecture import Role, Weight
from nemotron_build.errors import BuildError, SettingError
from nemotron_build.strict_yaml import load_yaml

AUTO = "auto"
_FILE = Path(__file__).with_name("precisions.yaml")


class _Strict:
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, kw_only=True)
class Storage(_Strict):
    """How the weights are laid out.

    `scales_per` is what shares one scale of `scale_bits`: a tensor, a row (output channel) or a block of `block_size`
    values along a row. `roles` are the tensors it applies to; all others take `other_bits`.
    """

    bits: int
    scales_per: Literal["nothing", "tensor", "row", "block"] = "nothing"
    scale_bits: int = 0
    block_size: int = 1
    roles: frozenset[Role] = frozenset({"linear"})
    other_bits: int = 16

    def bits_of(self, weight: Weight) -> int:
        """Bits of its values, scales apart."""
        return weight.values * (self.bits if weight.role in self.roles else self.other_bits)

    def scale_bits_of(self, weight: Weight) -> int:
        """Bits of its scales."""
        if weight.role not in self.roles:
            return 0
        rows, blocks = weight.values // weight.shape[-1], -(-weight.values // self.block_size)
        return {"nothing": 0, "tensor": 1, "row": rows, "block": blocks}[self.scales_per] * self.scale_bits


@dataclass(frozen=True, kw_only=True)
class ModelOpt(_Strict):
    """ModelOpt's configuration: a preset by its name in `modelopt.torch.quantization`, and `quantizers` to change.

    `any_block_size` is for presets that take the row's block size, or a smaller one, `cuda_only` for those that a CPU
    cannot compute.
    """

    preset: str
    quantizers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    any_block_size: bool = False
    cuda_only: bool = False


@dataclass(frozen=True, kw_only=True)
class TrtllmBuild(_Strict):
    """Settings of `trtllm-build`: its plug-ins, whether attention can compute in FP8, and whether MLPs are fused."""

    gemm_plugin: str
    fp8_rowwise_gemm_plugin: str = "disable"
    fp8_attention: bool = False
    fused_mlp: bool = False


@dataclass(frozen=True, kw_only=True)
class Note(_Strict):
    """What is known beside the support itself; of some SMs or model types only, where they are named."""

    text: str
    sms: tuple[int, ...] | None = None
    models: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Support(_Strict):
    """The SMs (None is the CPU) on which an engine kind takes a precision, and the `reason` why not on others.

    `storage` is for a kind that stores what goes by this name otherwise.
    """

    listed: tuple[int | None, ...] = ()
    unlisted: tuple[int | None, ...] = ()
    unverified: tuple[int | None, ...] = ()
    reason: str | None = None
    notes: tuple[Note, ...] = ()
    storage: Storage | None = None

    @property
    def sms(self) -> tuple[int | None, ...]:
        """All on which it is not refused."""
        return self.listed + self.unlisted + self.unverified


@dataclass(frozen=True, kw_only=True)
class _Row(_Strict):
    """What rows of weights and of KV caches have in common; `quant_algo` is TensorRT-LLM's name for it."""

    name: str
    kinds: Mapping[str, Support] = field(default_factory=dict)
    quant_algo: str | None = None
    edge_llm: str | None = None

    def support(self, kind: str) -> Support:
        """Where engines of *kind* take it."""
        return self.kinds.get(kind, Support())

    def requires_sm(self, kind: str) -> int | None:
        """The least SM that an engine of *kind* runs on; None where it runs on no GPU."""
        return min((sm for sm in self.support(kind).sms if sm is not None), default=None)

    def lacks(self, words: Mapping[str, str]) -> str | None:
        """The first tool of *words*, which are attributes of a row and the tool that needs each, without a word."""
        return next((tool for word, tool in words.items() if getattr(self, word) is None), None)


@dataclass(frozen=True, kw_only=True)
class Precision(_Row):
    """One way to store the weights.

    `dtype` is the type of 16-bit weights, None for those that are quantised. `arithmetic` is what the matrix products
    run in. The tools' words are `modelopt`, `trtllm_build`, `edge_llm`, `gguf` (a type of GGML), and for a weight-only
    format that TensorRT-LLM's own script converts, not ModelOpt, `convert_checkpoint`. `trtllm_layout` and `hf_layout`
    are what our verifiers call the layout that ModelOpt exports.
    """

    storage: Storage
    dtype: Literal["bf16", "fp16"] | None = None
    arithmetic: Literal["bf16", "fp8", "int8", "fp4"] = "bf16"
    modelopt: ModelOpt | None = None
    trtllm_build: TrtllmBuild | None = None
    trtllm_layout: str | None = None
    convert_checkpoint: str | None = None
    hf_layout: str | None = None
    gguf: str | None = None

    def __post_init__(self) -> None:
        if (self.dtype is not None) != (self.storage.bits == 16):
            raise ValueError(f"dtype is {self.dtype} for {self.storage.bits} bits; 16 bit has one, nothing else has")

    @property
    def quantized(self) -> bool:
        """Whether it is anything but 16 bit."""
        return self.dtype is None

    @property
    def torch_dtype(self) -> Literal["bfloat16", "float16"]:
        """The type of what is not quantised, as torch and safetensors call it."""
        return "float16" if self.dtype == "fp16" else "bfloat16"

    @property
    def trtllm_checkpoint(self) -> str | None:
        """How a TensorRT-LLM checkpoint of it comes to be and is checked, if it does."""
        return self.convert_checkpoint or self.trtllm_layout


@dataclass(frozen=True, kw_only=True)
class KvPrecision(_Row):
    """One way to store keys and values. `bf16` and `fp16` both mean 16 bit, in the type the engine computes in.

    `modelopt` is the number of integer bits, or of exponent and mantissa; `llm_api` what the LLM API of TensorRT-LLM
    calls it, where that quantises the cache of a checkpoint.
    """

    bits: int
    modelopt: int | tuple[int, int] | None = None
    llm_api: str | None = None

    @property
    def quantized(self) -> bool:
        """Whether it is anything but 16 bit."""
        return self.bits != 16


@dataclass(frozen=True, kw_only=True)
class Precisions(_Strict):
    """The table: `weights` and `kv` by name, in the order of the file, and the `recommended` weights of each kind."""

    recommended: Mapping[str, tuple[str, ...]]
    weights: Mapping[str, Precision]
    kv: Mapping[str, KvPrecision]

    def __post_init__(self) -> None:
        for kind, names in self.recommended.items():
            for name in names:
                if name not in self.weights:
                    raise ValueError(f"recommended.{kind}: {name} is no row of weights")

    def find(self, name: str, kind: str) -> Precision:
        """The weights called *name* as engines of *kind* store them; `SettingError` lists the names."""
        if name not in self.weights:
            raise SettingError(f"--precision {name} does not exist; known: {AUTO}, {', '.join(self.weights)}")
        row = self.weights[name]
        return replace(row, storage=row.support(kind).storage or row.storage)

    def find_kv(self, name: str) -> KvPrecision:
        """The KV cache called *name*; `SettingError` lists the names."""
        if name not in self.kv:
            raise SettingError(f"--kv-precision {name} does not exist; known: {AUTO}, {', '.join(self.kv)}")
        return self.kv[name]


def read_precisions(path: Path = _FILE) -> Precisions:
    """The table in *path*; `BuildError` names the row and the key that are wrong."""
    try:
        table = load_yaml(path.read_text(encoding="utf-8"), trusted=True)
        for name, row in [*table["weights"].items(), *table["kv"].items()]:
            if isinstance(row, dict):
                row["name"] = name
        # JSON has lists where the rows have tuples and sets, and is else read as strictly.
        return TypeAdapter(Precisions).validate_json(json.dumps(table))
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{first['msg']}, got {reprlib.repr(first['input'])[:100]}"
        if first["type"] == "value_error":
            reason = str(first["ctx"]["error"])
        raise BuildError(": ".join(filter(None, (str(path), ".".join(map(str, first["loc"])), reason)))) from error
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BuildError(f"{path} has no rows of weights and kv that can be read: {reason}") from error


PRECISIONS = read_precisions()
PRECISION_NAMES = tuple(PRECISIONS.weights)
KV_PRECISION_NAMES = (AUTO, *PRECISIONS.kv)
