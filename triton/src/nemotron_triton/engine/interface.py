"""What every engine offers, and the plain values that cross the seam. Knows no engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from nemotron_triton.chat.reasoning import Thinking
from nemotron_triton.engine.stream import TokenStream


@dataclass(frozen=True, kw_only=True)
class Guide:
    """What generated text must look like: a grammar in GBNF, a JSON schema, or a regular expression.

    It is for the text behind the think block that `thinking` tells of. A grammar holds that block itself, and is always
    ours: those of callers may cost an engine anything.
    """

    kind: Literal["grammar", "json_schema", "regex"]
    text: str
    thinking: Thinking = "none"


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to pick tokens. The order is the Hugging Face one: penalties, temperature, top-k, top-p, min-p.

    `temperature` 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 switch those off; `seed` None draws one. `stop_ids`
    end an answer as the model's own end tokens do (which `ignore_end` switches off); before `min_tokens` tokens neither
    is picked. `bad_ids` are sequences of tokens that never come; `logit_bias` is added by token id. `logprobs` is how
    many alternatives to report with the log probability of each token, None for neither.
    """

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int = 0
    min_p: float = 0.0
    min_tokens: int = 0
    seed: int | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    ignore_end: bool = False
    stop_ids: tuple[int, ...] = ()
    bad_ids: tuple[tuple[int, ...], ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    guide: Guide | None = None
    logprobs: int | None = None


@dataclass(frozen=True, kw_only=True)
class EngineStatistics:
    """What the engine is doing, and has done since it started.

    `problem` says why it cannot generate any more.
    `prompt_steps` counts on while it reads prompts, so that a long one is not taken for silence.
    """

    active_requests: int
    waiting_requests: int
    generated_tokens: int
    prompt_steps: int = 0
    problem: str | None = None


class Engine(Protocol):
    """One loaded model. `generate` is called on the event loop, the rest on any thread."""

    @property
    def max_seq_len(self) -> int:
        """Prompt and answer of one request together, tokens."""
        ...

    @property
    def max_batch_size(self) -> int:
        """How many answers are generated at once; more wait in the engine."""
        ...

    @property
    def cannot(self) -> Mapping[str, str]:
        """The fields of `Sampling` that it does not support, each with the reason; such a request is refused.

        `guide.thinking` stands for a think block before a guide.
        """
        ...

    def generate(self, ids: Sequence[int], sampling: Sampling, stream: TokenStream) -> None:
        """Begin to generate after *ids* and return; what comes of it, errors too, goes into *stream*.

        It ends soon after `stream.cancelled`, which `stream.when_cancelled` announces.
        """
        ...

    def statistics(self) -> EngineStatistics:
        """For metrics, readiness and tests."""
        ...

    def close(self) -> None:
        """Stop everything and free the memory."""
        ...
