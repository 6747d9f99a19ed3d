"""How the `nemotron` model serves: its limits and times. They are the parameters of its `config.pbtxt`."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from nemotron_triton.errors import ServerError


def _setting(default: int, low: int, high: int, about: str) -> Any:
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "about": about})


_DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every limit of a served model; each field's metadata has its bounds and what it is about."""

    stream_interval_ms: int = _setting(
        100, 0, 10_000, "longest time to gather tokens of a busy stream into one response; 0 sends each by itself"
    )
    max_queue_requests: int = _setting(1024, 0, 1_000_000, "requests that may wait; one more is refused at once")
    max_queue_ms: int = _setting(30_000, 1, _DAY_MS, "longest time a request may wait before it is refused")
    max_requests_per_caller: int = _setting(
        0, 0, 1_000_000, "requests of one caller that may run and wait together; 0 is no limit"
    )
    max_request_ms: int = _setting(
        600_000, 1, _DAY_MS, "longest time a request may take, its answer included; a client may ask for less"
    )
    max_engine_silence_ms: int = _setting(
        120_000, 100, _DAY_MS, "longest time the engine may do nothing while it is asked to, before it is given up"
    )
    max_prompt_bytes: int = _setting(4 << 20, 1, 1 << 30, "longest text_input, messages, tools or grammar, in bytes")
    max_messages: int = _setting(4096, 1, 1_000_000, "messages in one conversation")
    max_tools: int = _setting(256, 0, 100_000, "tools of one request")
    log_requests: int = _setting(1, 0, 1, "1 writes a line for every request")
    log_text: int = _setting(0, 0, 1, "1 writes prompts and answers into that line")

    def __post_init__(self) -> None:
        """Refuse what is out of bounds."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            low, high = field.metadata["low"], field.metadata["high"]
            if not isinstance(value, int) or not low <= value <= high:
                raise ServerError(f"{field.name} is {value!r}; it must be a whole number between {low} and {high}")

    @classmethod
    def read(cls, model_config: str) -> Settings:
        """From the JSON of a model's configuration, as Triton hands it to `initialize`; `ServerError` when wrong.

        Unknown names are refused, because a limit that is misspelt would not hold.
        """
        parameters = json.loads(model_config).get("parameters", {})
        # Triton's own parameters, such as EXECUTION_ENV_PATH, are in capitals.
        values = {name: value["string_value"] for name, value in parameters.items() if not name.isupper()}
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ServerError(f"there is no setting {unknown[0]}; known: {', '.join(sorted(known))}")
        try:
            return cls(**{name: int(value) for name, value in values.items()})
        except ValueError as error:
            raise ServerError(f"a setting is no whole number: {error}") from error

    def as_parameters(self) -> dict[str, str]:
        """The parameters of a model's configuration that `read` understands."""
        return {name: str(value) for name, value in dataclasses.asdict(self).items()}
