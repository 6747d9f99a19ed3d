"""Stands in for `tensorrt_llm.llmapi` of 1.2.1: takes what it takes, and answers what a test has it answer.

Arguments and fields are held against the contract. What a test does with a `RequestOutput` (`respond`, `break_off`)
reaches its reader as an answer of the real one would: one object that grows, on the event loop that asked.
"""

from __future__ import annotations

import asyncio
import inspect
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, SimpleNamespace
from typing import Any, ClassVar

from contract import RUNTIME, BreachError, check_fields, check_llm_arguments

_CONTRACT = RUNTIME["tensorrt_llm"]


class RequestError(RuntimeError):
    """What a worker reports of one request."""


class _Fields:
    """Fields with the contract's defaults; `BreachError` for one that 1.2.1 lacks, or a value of another type."""

    fields: ClassVar[dict[str, Any]]
    types: ClassVar[dict[str, tuple[type, ...]]]
    hidden: ClassVar[tuple[str, ...]] = ()

    def __init__(self, **values: Any) -> None:
        fields = {name: row for name, row in self.fields.items() if not row.get("not_in")}
        for name, row in fields.items():
            setattr(self, name, values.get(name, row["default"]))
        check_fields(values, self.fields, type(self).__name__, self.types)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.fields and name not in self.hidden:
            raise AttributeError(name)
        super().__setattr__(name, value)


class GuidedDecodingParams(_Fields):
    """At most one guide; `ValueError` for two."""

    fields = _CONTRACT["guided_decoding_params"]
    types: ClassVar = {"str": (str,), "dict": (dict,), "bool": (bool,), "None": (NoneType,), "BaseModel": ()}

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        count = sum(bool(getattr(self, name)) for name in self.fields)
        if count > 1:
            raise ValueError(f"Only one guide can be used for a request, but got {count}.")


class _NoSuch:
    """The type of an argument that no test passes."""


class SamplingParams(_Fields):
    """As in TensorRT-LLM, with its stop words and bad words."""

    fields = _CONTRACT["sampling_params"]
    types: ClassVar = {
        "int": (int,),
        "float": (float, int),
        "bool": (bool,),
        "str": (str,),
        "None": (NoneType,),
        "list": (list,),
        "list[int]": (list,),
        "list[str]": (list,),
        "Tensor": (object,),
        "GuidedDecodingParams": (GuidedDecodingParams,),
        "LogitsProcessor": (object,),
        "LookaheadDecodingConfig": (_NoSuch,),
    }
    hidden = ("_bad_word_ids",)

    def __init__(self, **values: Any) -> None:
        self._bad_word_ids: list[list[int]] | None = None
        super().__init__(**values)

    @property
    def bad_words(self) -> list[list[int]]:
        """The words as the executor gets them."""
        words: list[list[int]] = [[token_id] for token_id in self.bad_token_ids or ()]
        if self.bad is None:
            return words
        if self._bad_word_ids is None:
            raise RuntimeError("SamplingParams.bad is not processed by tokenizer, please call the setup method.")
        return words + self._bad_word_ids

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is chosen."""
        return self.top_k == 1 or (self.top_k is None and self.top_p in (None, 0.0))

    def check(self, kind: str) -> None:
        """Refuse what the C++ decoder refuses, and logits processors that the executor of *kind* cannot call."""
        if (processor := self.logits_processor) is not None:
            if not 4 <= len(inspect.signature(processor).parameters) <= 5:
                raise BreachError("Logit post processor signature must match the `LogitsProcessor` interface")
            if kind == "pytorch":
                # It reaches the worker process in a pickle.
                pickle.dumps(processor)
        if self.temperature is not None and self.temperature <= 0:
            raise RequestError("temperature must be greater than 0")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise RequestError("topP must be in (0, 1]")
        assert self.bad_words is not None


@dataclass
class Logprob:
    """The log probability of one token at one position."""

    logprob: float
    rank: int | None = None


@dataclass
class CompletionOutput:
    """One answer so far."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    request_perf_metrics: Any = None


class RequestOutput:
    """A request, made on the event loop that reads it: an iterable of itself, which has grown each time."""

    def __init__(self, prompt_token_ids: list[int], sampling_params: SamplingParams) -> None:
        self.prompt_token_ids = prompt_token_ids
        self.sampling_params = sampling_params
        self.outputs = [CompletionOutput()]
        self.finished = False
        self.aborted = False
        # As of the last response that arrived; TensorRT-LLM's C++ executor never tells it.
        self.cached_tokens = 0
        self.reused_blocks = 0
        self._responses: asyncio.Queue[tuple[list[int], str | None, list[Any]] | Exception] = asyncio.Queue()

    def respond(self, *ids: int, finish: str | None = None, logprobs: list[Any] | None = None) -> None:
        """Generate *ids*."""
        self._responses.put_nowait((list(ids), finish, logprobs or []))

    def break_off(self, error: Exception) -> None:
        """Fail."""
        self._responses.put_nowait(error)

    def abort(self) -> None:
        """Abort the request, after which the worker sends one more response, as in TensorRT-LLM."""
        self.aborted = True
        self.respond(finish="cancelled")

    def __aiter__(self) -> RequestOutput:
        return self

    async def __anext__(self) -> RequestOutput:
        if self.finished:
            raise StopAsyncIteration
        response = await self._responses.get()
        if isinstance(response, Exception):
            raise response
        ids, finish, logprobs = response
        output = self.outputs[0]
        output.token_ids.extend(ids)
        output.logprobs = [*output.logprobs, *logprobs]
        self.finished = finish is not None
        if self.finished and self.sampling_params.return_perf_metrics:
            blocks = SimpleNamespace(num_reused_blocks=self.reused_blocks)
            output.request_perf_metrics = SimpleNamespace(kv_cache_metrics=blocks)
        output.finish_reason = finish
        stops = self.sampling_params.stop_token_ids or []
        # A stop token is removed, an end token is not.
        if finish == "stop" and ids and ids[-1] in stops:
            output.stop_reason = ids[-1]
            output.token_ids = output.token_ids[:-1]
        return self


class Executor:
    """The executor of an `LLM`, as long as that lives."""

    def __init__(self) -> None:
        self.doing_shutdown = False

    def is_shutdown(self) -> bool:
        return self.doing_shutdown


class BaseLLM:
    """A loaded model; `BreachError` for arguments that 1.2.1 would not take, `ValueError` where there is no model."""

    kind: ClassVar[str]
    started: ClassVar[list[BaseLLM]] = []

    def __init__(self, **arguments: Any) -> None:
        check_llm_arguments(self.kind, arguments)
        for name in ("model", "tokenizer"):
            if not Path(arguments[name]).is_absolute():
                raise BreachError(f"{name} is {arguments[name]}, which the working directory decides about")
        if not (Path(arguments["model"]) / "config.json").is_file():
            raise ValueError(f"no config.json in {arguments['model']}\nand much more about it")
        self.arguments = arguments
        self.requests: list[RequestOutput] = []
        self._executor: Executor | None = Executor()
        self.started.append(self)

    def generate_async(self, inputs: list[int], *, sampling_params: SamplingParams, streaming: bool) -> RequestOutput:
        """As in TensorRT-LLM, for token ids."""
        asyncio.get_running_loop()
        if self._executor is None or self._executor.is_shutdown():
            raise RuntimeError("LLM is shutting down")
        if not (streaming and isinstance(inputs, list) and all(type(token_id) is int for token_id in inputs)):
            raise BreachError("only streams of token ids are stood in for")
        if sampling_params.end_id is None:
            raise BreachError("without end_id the tokenizer of the LLM API decides what ends an answer")
        sampling_params.check(self.kind)
        if len(inputs) > 1000:
            raise ValueError("The sum of prompt length should not exceed max_num_tokens\nsee there")
        self.requests.append(RequestOutput(inputs, sampling_params))
        return self.requests[-1]

    def die(self) -> None:
        """Kill the worker: the executor shuts down, and does not wake those that wait."""
        assert self._executor
        self._executor.doing_shutdown = True

    def shutdown(self) -> None:
        self._executor = None
