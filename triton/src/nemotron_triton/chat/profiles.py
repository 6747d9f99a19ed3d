"""Model profiles: everything that depends on the model, read from the YAML files in `models/` and checked.

A profile names its prompt, reasoning and tool-call formats, which `render`, `reasoning` and `formats` implement. The
three are separate, because models combine them differently.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, GetPydanticSchema, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, core_schema

from nemotron_triton.chat import reasoning
from nemotron_triton.chat.conversation import shown
from nemotron_triton.chat.formats import format_names
from nemotron_triton.errors import ProfileError, UnknownProfileError

TEMPLATES = Path(__file__).parent / "templates"
DEFAULT_PROFILE = "llama-nemotron-nano-4b-v1.1"
_FOLDER = Path(__file__).parent / "models"
_STRICT = ConfigDict(extra="forbid", strict=True)


def _one_of(names: Callable[[], Iterable[str]]) -> GetPydanticSchema:
    return GetPydanticSchema(lambda *_: core_schema.literal_schema(sorted(names())))


@dataclass(frozen=True, kw_only=True)
class SamplingDefaults:
    """The sampling that the model's publisher recommends (temperature 0 is greedy)."""

    temperature: float
    top_p: float
    max_tokens: int

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, kw_only=True)
class SamplingModes:
    """The sampling of both thinking modes, and of tool calling where that has its own."""

    thinking_on: SamplingDefaults
    thinking_off: SamplingDefaults
    tool_calling: SamplingDefaults | None = None

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, kw_only=True)
class ThinkingSwitch:
    """How thinking is switched: by a line in the system prompt, or by a template argument.

    `default` is the mode of a request that names none; None where such a prompt says nothing of thinking.
    """

    control: Literal["system_prompt", "enable_thinking"]
    default: bool | None

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One model: its formats, tokens, recommended sampling and published dimensions.

    `template_settings` are the model's constants for its template, `template_options` the variables of a request,
    `architecture` is as in the checkpoint's `config.json`. `name` is the file's, in which `sampling_modes` is called
    `sampling`.
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
    sampling_modes: Annotated[SamplingModes, Field(validation_alias="sampling")]
    architecture: Mapping[str, Any]
    aliases: tuple[str, ...] = ()
    template_settings: Mapping[str, Any] = field(default_factory=dict)
    template_options: tuple[str, ...] = ()

    __pydantic_config__ = _STRICT

    def sampling(self, *, thinking: bool, tools: bool = False) -> SamplingDefaults:
        """The recommended sampling of a request."""
        modes = self.sampling_modes
        return (tools and modes.tool_calling) or (modes.thinking_on if thinking else modes.thinking_off)


def profile_names() -> list[str]:
    """The names of the profiles, sorted."""
    return [path.stem for path in _files()]


def profile(name: str) -> Profile:
    """The profile with this name, repository or alias; `UnknownProfileError` lists the known ones."""
    if known := _by_name().get(name.lower()):
        return known
    raise UnknownProfileError(f"no model profile named {name!r}; known: {', '.join(profile_names())}")


def read_profile(path: Path) -> Profile:
    """The profile in the YAML file *path*; `ProfileError` names every key that is wrong."""
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(fields, dict):
            raise ValueError("it holds no keys")
        if "name" in fields:
            raise ValueError("name is its file's name, and not a key")
        # As JSON, because pydantic's strict mode for JSON has the types of YAML: lists, not tuples.
        return _adapter().validate_json(json.dumps(fields | {"name": path.stem}, default=str))
    except (OSError, TypeError, ValueError, RecursionError, yaml.YAMLError) as error:
        text = ", and ".join(map(_problem, error.errors())) if isinstance(error, ValidationError) else str(error)
        raise ProfileError(
            f"{path} is not a model profile: {' '.join(text.split())}", "correct it, or remove it"
        ) from error


@functools.cache
def _adapter() -> TypeAdapter[Profile]:
    return TypeAdapter(Profile)


@functools.cache
def _files() -> tuple[Path, ...]:
    return tuple(sorted(_FOLDER.glob("*.yaml")))


@functools.cache
def _by_name() -> Mapping[str, Profile]:
    """The profiles by all their names in lower case; of two with the same name, the first."""
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
        # Inside of a value most keys are required, so that the right one is reported as missing.
        return f"{key} is not known" + (f" (known: {', '.join(known)})" if key in error["loc"] else "")
    return f"{key} is {shown(error['input'])}; {error['msg'].replace('Input', 'it')}"
