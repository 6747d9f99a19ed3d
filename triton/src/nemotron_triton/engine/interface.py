"""The interface of an engine, and the values that it takes and returns. Imports no engine."""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from nemotron_triton.bundle import Bundle, Manifest
from nemotron_triton.chat.reasoning import Thinking
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.registry import ENGINES
from nemotron_triton.engine.stream import TokenStream
from nemotron_triton.findings import Finding
from nemotron_triton.memory import free_gpu_memory
from nemotron_triton.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class Guide:
    """Guided decoding: a grammar in GBNF, a JSON schema, or a regular expression for the generated text.

    It applies behind the think block that `thinking` describes; a grammar includes that block. Grammars are always our
    own, for tool calls, forced ones or those that may come (*strict*): compiling one of a caller could cost an engine
    without bound.
    """

    kind: Literal["grammar", "json_schema", "regex"]
    text: str
    thinking: Thinking = "none"
    strict: bool = False


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Sampling parameters, applied in Hugging Face's order: penalties, temperature, top-k, top-p, min-p.

    `temperature` 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 are off; `seed` None is random. `stop_ids` end an
    answer as the model's own end tokens do (which `ignore_end` switches off); neither is sampled before `min_tokens`
    tokens. `bad_ids` are token sequences that are never generated; `logit_bias` is added by token id. `logprobs` is the
    number of alternatives to report with the log probability of each token, None for no log probabilities.
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
    """Requests now, and counters since the start; `problem` says why the engine cannot generate any more.

    `prompt_steps` grows while prompts are read, so that a long one is not mistaken for a hang.
    """

    active_requests: int
    waiting_requests: int
    generated_tokens: int
    prompt_steps: int = 0
    problem: str | None = None


class Engine(ABC):
    """One loaded model. The class methods need no model, nor any package of the kind's runtime.

    Its constructor loads the model; `EngineError` when that is not possible here. `generate` is called on the event
    loop, the rest on any thread. A request with a field of `Sampling` that is in `cannot` is refused (`unsupported` has
    more). `max_seq_len` limits prompt and answer together, tokens. `max_batch_size` answers are generated at once;
    further requests wait in the engine.
    `memory_of` names, for messages, the memory that the model takes. `kv_tokens_per_block` is None where the KV cache
    has no blocks, or their size is not known; `max_prompt_tokens` where a prompt may fill the context but for a token.
    """

    cannot: Mapping[str, str]
    max_seq_len: int
    max_batch_size: int
    kv_tokens_per_block: int | None = None
    max_prompt_tokens: int | None = None
    memory_of: ClassVar[str] = "the GPU's"

    def __init__(self, bundle: Bundle, codec: TokenCodec) -> None:
        self.manifest = bundle.manifest
        self.codec = codec
        self.cannot = self.unsupported(bundle.manifest.llm_args or {})
        self.max_seq_len = bundle.manifest.max_seq_len
        self.max_batch_size = bundle.manifest.max_batch_size
        self.max_prompt_tokens = bundle.manifest.plan.get("settings", {}).get("max_input_len")

    @abstractmethod
    def generate(self, ids: Sequence[int], sampling: Sampling, stream: TokenStream) -> None:
        """Begin to generate after *ids* and return at once; tokens and errors go into *stream*.

        Generation ends soon after `stream.cancel`, which calls what `stream.when_cancelled` was given.
        """

    @abstractmethod
    def statistics(self) -> EngineStatistics:
        """For metrics, readiness and tests."""

    @abstractmethod
    def close(self) -> None:
        """End all requests and free the memory."""

    @classmethod
    def unsupported(cls, _llm_args: Mapping[str, Any]) -> Mapping[str, str]:
        """The fields of `Sampling` that an engine does not support whose build wrote *llm_args*, each with the reason.

        `guide.thinking` is a think block before a JSON schema or an expression, `guide.characters` a grammar with more
        characters beyond ASCII than can be written out. What a library takes and ignores is not supported.
        `docs/answers.md` has the table of all kinds.
        """
        return {}

    @classmethod
    def machine_findings(cls, _manifest: Manifest, _runtime: Runtime) -> Iterator[Finding]:
        """Whether a machine can load the engine: its GPU, and the versions of the runtime. Every kind has its own."""
        yield from ()

    @classmethod
    def bundle_findings(cls, _bundle: Bundle) -> Iterator[Finding]:
        """Whether the engine's own files agree with the manifest; most kinds have none to compare."""
        yield from ()

    @classmethod
    def free_memory(cls) -> int | None:
        """Free bytes of the memory that the engine would take, None where the machine does not report it."""
        return free_gpu_memory()


def engine_class(kind: str) -> type[Engine]:
    """The engine of *kind*, whose module is imported only now."""
    engine: type[Engine] = pkgutil.resolve_name(ENGINES[kind])
    return engine
