"""Everything that depends on which model it is, read from the YAML files in `models/`.

A profile holds the name of its prompt format, never code: `render` looks the template up. How thinking and calls are
written is `answer`'s, and the same for every profile there is so far.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
class Profile:
    """One model: its prompt format, control tokens, recommended sampling and published dimensions."""

    name: str
    prompt_format: str
    control_tokens: tuple[str, ...]
    thinking_on: SamplingDefaults
    thinking_off: SamplingDefaults
    architecture: Mapping[str, int]

    def sampling(self, *, thinking: bool) -> SamplingDefaults:
        """The recommended sampling of the mode."""
        return self.thinking_on if thinking else self.thinking_off


def profile_names() -> list[str]:
    """The names `profile` accepts, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


@functools.cache
def profile(name: str) -> Profile:
    """The profile called *name*; `ProfileError` lists the known ones."""
    if name not in profile_names():
        raise ProfileError(f"no model profile named {name!r}; known: {', '.join(profile_names())}")
    fields: dict[str, Any] = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    modes = fields.pop("sampling")
    return Profile(
        **fields
        | {
            "control_tokens": tuple(fields["control_tokens"]),
            "thinking_on": SamplingDefaults(**modes["thinking_on"]),
            "thinking_off": SamplingDefaults(**modes["thinking_off"]),
        }
    )
