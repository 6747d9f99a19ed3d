"""Everything that depends on which model it is, read from the YAML files in `models/`.

A profile names its prompt, reasoning and tool-call formats, never code: `render` looks the template up, `answer` and
`calls` the rest. The three are separate, because models mix them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from nemotron_triton.errors import ProfileError

_FOLDER = Path(__file__).parent / "models"
DEFAULT_PROFILE = "llama-nemotron-nano-4b-v1.1"


@dataclass(frozen=True, kw_only=True)
class SamplingDefaults:
    """What the model's makers recommend for one thinking mode (temperature 0 is greedy)."""

    temperature: float
    top_p: float
    max_tokens: int


@dataclass(frozen=True, kw_only=True)
class ThinkingSwitch:
    """How thinking is switched: by a line in the system prompt, or by a template argument.

    `default` is what a request gets that names no mode; None where the model is then left to itself.
    """

    control: Literal["system_prompt", "enable_thinking"]
    default: bool | None


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One model: its formats, tokens, recommended sampling and published dimensions.

    `template_settings` are constants of the model for its template, `template_options` are what a request may set,
    `architecture` is as in the checkpoint's `config.json`.
    """

    name: str
    repository: str
    prompt_format: str
    reasoning_format: Literal["think_tags_model_opens", "think_tags_prompt_opens"]
    tool_call_format: Literal["nemotron_json", "qwen3_coder"]
    thinking: ThinkingSwitch
    context_tokens: int
    control_tokens: Mapping[str, int]
    end_tokens: tuple[str, ...]
    sampling_defaults: Mapping[str, SamplingDefaults]
    architecture: Mapping[str, Any]
    aliases: tuple[str, ...] = ()
    template_settings: Mapping[str, Any] = field(default_factory=dict)
    template_options: tuple[str, ...] = ()

    def sampling(self, *, thinking: bool, tools: bool = False) -> SamplingDefaults:
        """The recommended sampling of the mode, and of tool calling where the makers tell the two apart."""
        if tools and "tool_calling" in self.sampling_defaults:
            return self.sampling_defaults["tool_calling"]
        return self.sampling_defaults["thinking_on" if thinking else "thinking_off"]


def profile_names() -> list[str]:
    """The profiles there are, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def profile(name: str) -> Profile:
    """The profile called *name*, or made for the repository called so; `ProfileError` lists the known ones."""
    for known in map(_read, profile_names()):
        if name.lower() in {each.lower() for each in (known.name, known.repository, *known.aliases)}:
            return known
    raise ProfileError(f"no model profile named {name!r}; known: {', '.join(profile_names())}")


@functools.cache
def _read(name: str) -> Profile:
    fields: dict[str, Any] = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    modes = fields.pop("sampling")
    made = {
        "thinking": ThinkingSwitch(**fields.pop("thinking")),
        "sampling_defaults": {mode: SamplingDefaults(**values) for mode, values in modes.items()},
    }
    lists = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
    return Profile(name=name, **fields | lists | made)
