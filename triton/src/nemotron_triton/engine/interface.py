"""What every engine offers, and the plain values that cross the seam. Knows no engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from nemotron_triton.bundle import Bundle, Manifest
from nemotron_triton.chat.reasoning import Thinking
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.stream import TokenStream
from nemotron_triton.findings import Finding
from nemotron_triton.memory import free_gpu_memory
from nemotron_triton.runtime import Runtime


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


class Engine(ABC):
    """One loaded model, and as a class what is known of its kind before one is loaded, with none of its packages.

    `generate` is called on the event loop, the rest on any thread. `cannot` has the fields of `Sampling` that the
    engine does not support, each with the reason; such a request is refused. There `guide.thinking` stands for a think
    block before a guide. `memory_of` says in whose memory it lies, for a message.
    """

    cannot: Mapping[str, str]
    memory_of: ClassVar[str] = "the GPU's"

    def __init__(self, bundle: Bundle, codec: TokenCodec) -> None:
        """Load the model of *bundle*; `EngineError` when that cannot be done here."""
        self.manifest = bundle.manifest
        self.codec = codec

    @property
    def max_seq_len(self) -> int:
        """Prompt and answer of one request together, tokens."""
        return self.manifest.max_seq_len

    @property
    def max_batch_size(self) -> int:
        """How many answers are generated at once; more wait in the engine."""
        return self.manifest.max_batch_size

    @abstractmethod
    def generate(self, ids: Sequence[int], sampling: Sampling, stream: TokenStream) -> None:
        """Begin to generate after *ids* and return; what comes of it, errors too, goes into *stream*.

        It ends soon after `stream.cancelled`, which `stream.when_cancelled` announces.
        """

    @abstractmethod
    def statistics(self) -> EngineStatistics:
        """For metrics, readiness and tests."""

    @abstractmethod
    def close(self) -> None:
        """Stop everything and free the memory."""

    @classmethod
    def machine_findings(cls, _manifest: Manifest, _runtime: Runtime) -> Iterator[Finding]:
        """Whether a machine can load the engine: its GPU, and the versions of what runs it. Every kind has its own."""
        yield from ()

    @classmethod
    def bundle_findings(cls, _bundle: Bundle) -> Iterator[Finding]:
        """Whether the engine's own files say what the manifest says; most kinds have none that say anything."""
        yield from ()

    @classmethod
    def free_memory(cls) -> int | None:
        """Bytes that are free where the engine would lie, None where nothing tells."""
        return free_gpu_memory()
