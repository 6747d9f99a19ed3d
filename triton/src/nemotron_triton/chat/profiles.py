"""Everything that depends on which model it is, read from the YAML files in `models/` and checked.

A profile names its prompt, reasoning and tool-call formats, never code: `render`, `reasoning` and `formats` have them.
The three are separate, because models mix them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from nemotron_triton.chat import reasoning
from nemotron_triton.chat.conversation import shown
from nemotron_triton.chat.formats import format_names
from nemotron_triton.errors import ProfileError

TEMPLATES = Path(__file__).parent / "templates"
DEFAULT_PROFILE = "llama-nemotron-nano-4b-v1.1"
_FOLDER = Path(__file__).parent / "models"
_STRICT = ConfigDict(extra="forbid", strict=True)
_Mode = Literal["thinking_on", "thinking_off", "tool_calling"]


def _one_of(names: Callable[[], Iterable[str]]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in (known := sorted(names())):
            raise PydanticCustomError("unknown_name", "Input should be one of {known}", {"known": ", ".join(known)})
        return name

    return AfterValidator(check)


def _both_modes(modes: Mapping[_Mode, Any]) -> Mapping[_Mode, Any]:
    for mode in ("thinking_on", "thinking_off"):
        if mode not in modes:
            raise PydanticCustomError("missing_mode", "Input should have {mode}", {"mode": mode})
    return modes


@dataclass(frozen=True, kw_only=True)
class SamplingDefaults:
    """What the model's makers recommend for one thinking mode (temperature 0 is greedy)."""

    temperature: float
    top_p: float
    max_tokens: int

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, kw_only=True)
class ThinkingSwitch:
    """How thinking is switched: by a line in the system prompt, or by a template argument.

    `default` is what a request gets that names no mode; None where the model is then left to itself.
    """

    control: Literal["system_prompt", "enable_thinking"]
    default: bool | None

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One model: its formats, tokens, recommended sampling and published dimensions.

    `template_settings` are constants of the model for its template, `template_options` are what a request may set,
    `architecture` is as in the checkpoint's `config.json`. `name` is the file's, which calls `sampling_defaults`
    only `sampling`.
    """

    name: str
    repository: str
    prompt_format: Annotated[str, _one_of(lambda: [path.stem for path in TEMPLATES.glob("*.jinja")])]
    reasoning_format: Annotated[str, _one_of(lambda: reasoning.FORMATS)]
    tool_call_format: Annotated[str, _one_of(format_names)]
    thinking: ThinkingSwitch
    context_tokens: int
    control_tokens: Mapping[str, int]
    end_tokens: tuple[str, ...]
    sampling_defaults: Annotated[
        Mapping[_Mode, SamplingDefaults], AfterValidator(_both_modes), Field(validation_alias="sampling")
    ]
    architecture: Mapping[str, Any]
    aliases: tuple[str, ...] = ()
    template_settings: Mapping[str, Any] = field(default_factory=dict)
    template_options: tuple[str, ...] = ()

    __pydantic_config__ = _STRICT

    def sampling(self, *, thinking: bool, tools: bool = False) -> SamplingDefaults:
        """The recommended sampling of the mode, and of tool calling where the makers tell the two apart."""
        if tools and "tool_calling" in self.sampling_defaults:
            return self.sampling_defaults["tool_calling"]
        return self.sampling_defaults["thinking_on" if thinking else "thinking_off"]


def profile_names() -> list[str]:
    """The profiles there are, sorted."""
    return [path.stem for path in _files()]


def profile(name: str) -> Profile:
    """The profile called *name*, or made for the repository called so; `ProfileError` lists the known ones."""
    if known := _by_name().get(name.lower()):
        return known
    raise ProfileError(f"no model profile named {name!r}; known: {', '.join(profile_names())}")


def read_profile(path: Path) -> Profile:
    """The profile in the YAML file *path*; `ProfileError` names every key that is wrong."""
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(fields, dict):
            raise ValueError("it holds no keys")
        if "name" in fields:
            raise ValueError("name is its file's name, and not a key")
        # As JSON, because what is strict about a list or a number is then what YAML has too.
        return _adapter().validate_json(json.dumps(fields | {"name": path.stem}, default=str))
    except (OSError, TypeError, ValueError, RecursionError, yaml.YAMLError) as error:
        text = ", and ".join(map(_problem, error.errors())) if isinstance(error, ValidationError) else str(error)
        raise ProfileError(f"{path} is not a model profile: {' '.join(text.split())}") from error


@functools.cache
def _adapter() -> TypeAdapter[Profile]:
    return TypeAdapter(Profile)


@functools.cache
def _files() -> tuple[Path, ...]:
    return tuple(sorted(_FOLDER.glob("*.yaml")))


@functools.cache
def _by_name() -> Mapping[str, Profile]:
    """The profiles by all their names, in lower case; the first of two that share one."""
    profiles: dict[str, Profile] = {}
    for known in map(read_profile, _files()):
        for name in (known.name, known.repository, *known.aliases):
            profiles.setdefault(name.lower(), known)
    return profiles


def _problem(error: ErrorDetails) -> str:
    key = ".".join(str(part) for part in error["loc"] if part != "[key]")
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "unexpected_keyword_argument":
        known = sorted(_adapter().json_schema()["properties"].keys() - {"name"})
        # Deeper down every key is needed, so that the right one is named as missing.
        return f"{key} is not known" + (f" (known: {', '.join(known)})" if key in error["loc"] else "")
    return f"{key} is {shown(error['input'])}; {error['msg'].replace('Input', 'it')}"
