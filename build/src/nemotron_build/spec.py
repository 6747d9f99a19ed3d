"""What a user decides about a build: from flags, and from one YAML file. Decides nothing itself."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import ConfigDict, Strict, TypeAdapter, ValidationError

from nemotron_build.commands.container import check_image
from nemotron_build.errors import BuildError, SettingError
from nemotron_build.planning.planner import DEFAULT_CONCURRENCY
from nemotron_build.strict_yaml import load_yaml
from nemotron_client.spelling import did_you_mean
from nemotron_triton.chat.profiles import DEFAULT_PROFILE

MAX_CONFIG_BYTES = 1024 * 1024
_MOST = 1_000_000
# Not a truth value, which YAML writes as yes and on too.
_Count = Annotated[int, Strict()]


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """Everything a user decides about a build. Lengths are in tokens; None and `auto` are settled by the plan.

    `calibration` and `quality_data` are JSON Lines of conversations, by default the small sets that come with us;
    `chat_template` is a Jinja file, `image` the container that compiles, `device` where quantisation computes.
    """

    checkpoint: Path
    gpu: str
    precision: str = "auto"
    kv_precision: str = "auto"
    engine_kind: str | None = None
    model: str = DEFAULT_PROFILE
    max_seq_len: _Count | None = None
    max_batch_size: _Count = DEFAULT_CONCURRENCY
    chat_template: Path | None = None
    calibration: Path | None = None
    calibration_samples: _Count = 512
    quality_data: Path | None = None
    quality_samples: _Count = 24
    device: str = "auto"
    image: str | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "calibration_samples", "quality_samples"):
            value = getattr(self, name)
            if value < 1:
                raise SettingError(f"{_flag(name)} is {value}; at least 1 is needed")
            if value > _MOST:
                raise SettingError(f"{_flag(name)} is {reprlib.repr(value)}; at most {_MOST} make sense")
        for name in ("checkpoint", "chat_template", "calibration", "quality_data"):
            if "\0" in str(getattr(self, name)):
                raise SettingError(f"{_flag(name)} is {str(getattr(self, name))!r}, which is no path")
        if self.max_seq_len is not None and self.max_seq_len < 16:
            raise SettingError(f"--max-seq-len is {self.max_seq_len}; no prompt fits, give at least 16")
        if self.image is not None:
            check_image(self.image)
        if self.device not in ("auto", "cpu", "cuda"):
            raise SettingError(f"--device {self.device} does not exist; known: auto, cpu, cuda")


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a YAML file, in `EngineSpec`'s names; `SettingError` for what it does not know, with the nearest.

    Relative paths in it count from its own folder.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            raise BuildError(f"{path} is larger than {MAX_CONFIG_BYTES >> 20} MiB; this is not a build's configuration")
        values = load_yaml(data.decode("utf-8-sig"))
    except OSError as error:
        raise BuildError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BuildError(f"{path} is not YAML: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(values, dict):
        raise BuildError(f"{path} must hold settings as `name: value`")
    hints = {field.name: str(field.type) for field in dataclasses.fields(EngineSpec)}
    for name, value in values.items():
        if name not in hints:
            hint = f"{did_you_mean(str(name), hints)} known: {', '.join(hints)}"
            raise SettingError(f"{path}: no setting is called {reprlib.repr(name)}; {hint.lstrip()}")
        if hints[name].startswith("Path") and isinstance(value, str):
            try:
                values[name] = str(path.parent / Path(value).expanduser())
            except RuntimeError as error:
                raise SettingError(f"{path}: {name}: {error}") from error
    return values


def make_spec(values: Mapping[str, Any]) -> EngineSpec:
    """The spec with *values*, checked; `SettingError` names the setting that is wrong or missing."""
    try:
        return TypeAdapter(EngineSpec).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        if first["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
            raise SettingError(f"{_flag(name)} is missing; give it, or set {name} in the --config file") from error
        raise SettingError(f"{_flag(name)}: {first['msg']}, got {reprlib.repr(first['input'])[:100]}") from error


def _flag(name: str) -> str:
    return "CHECKPOINT" if name == "checkpoint" else f"--{name.replace('_', '-')}"
