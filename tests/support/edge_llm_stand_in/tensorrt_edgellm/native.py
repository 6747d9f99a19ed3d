"""Stands in for Edge-LLM's native runtime: has what its binding declares, and answers what a test has it answer.

It tokenises as the real one does: with the tokenizer beside the engine, control tokens wherever they are spelt.
"""

from __future__ import annotations

import enum
import queue
import threading
import time
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar

from tokenizers import Tokenizer

from contract import RUNTIME, BreachError, check_fields

_CONTRACT = RUNTIME["edge_llm"]


def _enum(name: str) -> Any:
    members: list[str] = _CONTRACT["enums"][name]
    return enum.Enum(name, members)


GuideType, FinishReason, ShutdownMode = _enum("GuideType"), _enum("FinishReason"), _enum("ShutdownMode")


class SubmitError(Exception):
    """A request that is refused."""


class _Bound:
    """Has the fields of its binding with their first values, read-only ones too; a field takes only its own type."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        fields = _CONTRACT["classes"][type(self).__name__]["fields"]
        if name not in fields or not fields[name]["set"]:
            raise AttributeError(f"{type(self).__name__} has no {name} that can be set")
        if not isinstance(value, _types(fields[name]["type"])) or (
            isinstance(value, bool) and fields[name]["type"] != "bool"
        ):
            raise TypeError(f"{type(self).__name__}.{name} is {value!r}, not {fields[name]['type']}")
        super().__setattr__(name, value)


def _types(declared: str) -> tuple[type, ...]:
    plain: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "float": (float, int),
        "bool": (bool,),
        "str": (str,),
        "None": (NoneType,),
        "GuidedDecodingParams": (GuidedDecodingParams,),
    }
    alternatives = declared.split(" | ")
    containers = {"list": (list,), "dict": (dict,)}
    return tuple(kind for name in alternatives for kind in plain.get(name) or containers[name.partition("[")[0]])


class GuidedDecodingParams(_Bound):
    """A guide of an answer."""

    def __init__(self, type: Any, guide: str = "") -> None:  # noqa: A002
        super().__init__(type=type, guide=guide)


class MessageContent(_Bound):
    """A part of a message."""

    def __init__(self, type: str, content: str) -> None:  # noqa: A002
        super().__init__(type=type, content=content)


class Message(_Bound):
    """A message."""

    def __init__(self, role: str, contents: list[MessageContent]) -> None:
        super().__init__(role=role, contents=contents)


class ContextCacheConfig(_Bound):
    """The cache of contexts, which is off."""


class Request(_Bound):
    """One sequence."""

    def __init__(self, messages: list[Message]) -> None:
        super().__init__(messages=messages, logit_bias={}, guided_decoding=None, sampling_seed=None, stop_strings=[])


class LLMGenerationRequest(_Bound):
    """A request without a sequence and with the binding's own defaults, which ask for no token."""

    def __init__(self) -> None:
        super().__init__(
            requests=[],
            stream_channels=[],
            temperature=0.0,
            top_k=0,
            top_p=0.0,
            max_generate_length=0,
            num_logprobs=0,
            apply_chat_template=True,
            add_generation_prompt=True,
            skip_special_tokens=True,
        )

    @property
    def greedy(self) -> bool:
        """As `shouldUseNonGreedySampling` decides it; `RuntimeError` where `SamplingParams` throws."""
        if self.temperature < 1e-3 or (self.temperature == 1.0 and self.top_k <= 1 and self.top_p == 1.0):
            return True
        if self.top_k <= 0 and self.top_p >= 1:
            raise RuntimeError("Either topK or topP must be set")
        return bool(self.top_k == 1)


class LogprobEntry(_Bound):
    """A likely token of a step, with its log probability."""


class StreamChunk(_Bound):
    """The next tokens."""


class StreamChannel:
    """The tokens of a request; one that is `late` has its last token just after somebody waited for it."""

    late: ClassVar[bool] = False

    def __init__(self) -> None:
        self._chunks: queue.Queue[StreamChunk] = queue.Queue()
        self._finished = False

    @classmethod
    def create(cls) -> StreamChannel:
        return cls()

    def push(self, chunk: StreamChunk) -> None:
        """For tests."""
        self._chunks.put(chunk)
        self._finished = bool(chunk.finished)

    def wait_pop(self, timeout_ms: int) -> StreamChunk | None:
        if self.late:
            time.sleep(timeout_ms / 1000)
            return None
        try:
            return self._chunks.get(timeout=timeout_ms / 1000)
        except queue.Empty:
            return None

    def try_pop(self) -> StreamChunk | None:
        return None if self._chunks.empty() else self._chunks.get()

    def is_finished(self) -> bool:
        return self._finished

    def is_cancelled(self) -> bool:
        return False


class RequestHandle:
    """A request that was accepted; a test answers it."""

    def __init__(self, request: LLMGenerationRequest, prompt: str) -> None:
        self.request, self.prompt = request, prompt
        self.cancelled = threading.Event()
        self._error: RuntimeError | None = None

    def respond(self, *ids: int, finish: str | None = None, logprobs: list[list[LogprobEntry]] | None = None) -> None:
        """Generate *ids*."""
        (channel,) = self.request.stream_channels
        reason = FinishReason[finish or "NOT_FINISHED"]
        channel.push(StreamChunk(token_ids=[*ids], finished=finish is not None, reason=reason, logprobs=logprobs or []))

    def break_off(self, message: str) -> None:
        """Fail, without an end in the channel."""
        self._error = RuntimeError(message)

    def cancel(self) -> None:
        self.cancelled.set()

    def ready(self) -> bool:
        return self._error is not None

    def get(self) -> None:
        if self._error:
            raise self._error


class RequestEngine:
    """A loaded engine; `BreachError` for what the binding does not take, `RuntimeError` where there is no engine."""

    started: ClassVar[list[RequestEngine]] = []

    def __init__(self, **arguments: Any) -> None:
        types: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,), "dict": (dict,)}
        types["ContextCacheConfig"] = (ContextCacheConfig,)
        check_fields(arguments, _CONTRACT["request_engine"], "RequestEngine", types)
        folder = Path(arguments["engine_dir"])
        if not (folder / "llm.engine").is_file():
            raise RuntimeError(f"no llm.engine in {folder}\nand a stack of C++")
        self.arguments = arguments
        self.running = True
        self.refuses = ""
        self.handles: queue.Queue[RequestHandle] = queue.Queue()
        self._taken: list[RequestHandle] = []
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.started.append(self)

    def count_prompt_tokens(self, request: LLMGenerationRequest) -> list[int]:
        return [len(self._tokenizer.encode(_text(request), add_special_tokens=False).ids)]

    def submit(self, request: LLMGenerationRequest) -> RequestHandle:
        if self.refuses or not self.running:
            raise SubmitError(self.refuses or "the engine is shut down")
        assert request.greedy in (True, False)
        handle = RequestHandle(request, _text(request))
        self._taken.append(handle)
        self.handles.put(handle)
        return handle

    def shutdown(self, mode: Any) -> None:
        assert mode in ShutdownMode
        self.running = False
        for handle in self._taken:
            handle.break_off("the request was abandoned")


def validate_guided_decoding_params(params: GuidedDecodingParams) -> tuple[bool, str]:
    """Refuses the grammars that a test marks as wrong."""
    return ("refused" not in params.guide, "it uses refused" if "refused" in params.guide else "")


def _text(request: LLMGenerationRequest) -> str:
    if request.apply_chat_template:
        raise BreachError("a prompt that is rendered would be rendered again")
    ((message,),) = (sequence.messages for sequence in request.requests)
    ((content),) = message.contents
    return str(content.content)
