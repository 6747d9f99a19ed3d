"""The body of a completion of finished prompts, and what it is for the client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nemotron_gateway.errors import invalid
from nemotron_gateway.json_body import read, refuse
from nemotron_gateway.sampling_fields import SamplingFields, StreamOptions

MAX_PROMPTS = 64
IGNORED = frozenset({"metadata", "user", "add_special_tokens", "skip_special_tokens"})
_REFUSED = {
    "echo": "the answer holds what is new",
    "suffix": "this model only goes on with a text",
    "prompt_logprobs": "log probabilities are those of the answer",
    "use_beam_search": "give n",
}


class CompletionRequest(SamplingFields, kw_only=True):
    """The fields of a completion that are honoured; None is as if left out."""

    prompt: str | list[str | int | list[int]]
    logprobs: int | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None


@dataclass(frozen=True, kw_only=True)
class AskedText:
    """A request as the client takes it: an answer, or `n`, to each of `prompts`."""

    model: str | None
    prompts: list[str]
    n: int
    options: dict[str, Any]
    stream: bool
    stream_options: StreamOptions
    unknown: frozenset[str]


def read_completion(body: bytes) -> AskedText:
    """The request in *body*; `ApiError` names the field that is wrong."""
    request, others = read(body, CompletionRequest)
    given = {name for name in ("echo", "suffix") if getattr(request, name)}
    refuse(others | given, _REFUSED)
    if request.best_of not in (None, request.n or 1):
        raise invalid("best_of is not supported; give n", "best_of", "unsupported_parameter")
    options: dict[str, Any] = request.options() | request.guide()
    if request.logprobs is not None:
        options |= {"logprobs": True, "top_logprobs": request.logprobs}
    return AskedText(
        model=request.model,
        prompts=_prompts(request.prompt),
        n=request.n or 1,
        options={name: value for name, value in options.items() if value is not None},
        stream=bool(request.stream),
        stream_options=request.stream_options or StreamOptions(),
        unknown=others - IGNORED,
    )


def _prompts(prompt: str | list[Any]) -> list[str]:
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not prompts or not all(isinstance(text, str) for text in prompts):
        raise invalid("prompt must be a text, or a list of texts; token ids are not supported", "prompt")
    if len(prompts) > MAX_PROMPTS:
        raise invalid(f"prompt has {len(prompts)} texts; it may have {MAX_PROMPTS}", "prompt")
    return prompts
