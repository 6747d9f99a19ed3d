"""The LLM API of TensorRT-LLM 1.2.1, which the `tensorrt` and `pytorch` engines share. Not run on hardware.

TensorRT-LLM batches in flight, in this process or in a worker process, depending on the kind;
`TLLM_WORKER_USE_SINGLE_PROCESS`, 1 or 0, overrides that. Results arrive on the event loop, where a task per request
reads them. It is started as in TensorRT-LLM's own Triton model
(`triton_backend/all_models/llmapi/tensorrt_llm/1/model.py`) and called according to `llmapi/llm.py`,
`sampling_params.py`, `executor/executor.py` and `executor/result.py` in `tensorrt_llm/` of release 1.2.1.

Limits. Requests and tokens are counted here, because TensorRT-LLM's statistics arrive in a queue of whichever event
loop was first. A worker that dies does not wake the requests that wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import logging
import os
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Engine, EngineStatistics, Sampling
from nemotron_triton.engine.llm_sampling import end_ids, sampling_params
from nemotron_triton.engine.request_threads import CLOSED
from nemotron_triton.engine.stream import FinishReason, TokenLogprob, TokenStream
from nemotron_triton.engine.xgrammar import BEYOND_ASCII
from nemotron_triton.errors import BundleError, EngineError, RequestError, ServingError, first_line
from nemotron_triton.native_path import native_path

_DEAD = "TensorRT-LLM's executor has stopped"
# The others are timeout and cancelled, which end requests whose callers no longer wait.
_FINISH_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
# Variables that mpirun or srun set for the processes they start; settings of MPI itself (`…_MCA_…`) stay.
_MPI_JOB = re.compile(
    r"OMPI_(COMM_WORLD_.*|UNIVERSE_SIZE|FIRST_RANKS|APP_CTX_NUM_PROCS|MCA_orte_.*)|ORTE_.*|PMI_.*|PMIX_(?!MCA_).*"
)
_SINGLE_PROCESS = "TLLM_WORKER_USE_SINGLE_PROCESS"
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Running:
    result: Any
    stream: TokenStream
    end_ids: frozenset[int]
    alternatives: int | None
    abortable: bool
    tokens: int = 0


class LlmApiEngine(Engine):
    """TensorRT-LLM on one bundle: its class `LLM` of `_module`, the executor in this process if `_single_process`."""

    _module: ClassVar[str]
    _single_process: ClassVar[bool]

    def __init__(self, bundle: Bundle, codec: TokenCodec) -> None:
        super().__init__(bundle, codec)
        arguments = llm_arguments(bundle)
        leave_mpi_job(os.environ)
        if self._single_process:
            os.environ.setdefault(_SINGLE_PROCESS, "1")
        try:
            self._api: Any = importlib.import_module("tensorrt_llm.llmapi")
            llm: Callable[..., Any] = importlib.import_module(self._module).LLM
        # Raised by its libraries where CUDA, MPI or torch are not those that it was compiled with.
        except (ImportError, OSError, RuntimeError) as error:
            place = self.manifest.container or "a container with TensorRT-LLM 1.2.1"
            raise EngineError(
                f"TensorRT-LLM cannot be imported: {first_line(error)}", f"serve it in {place}"
            ) from error
        try:
            self._llm: Any = llm(**arguments)
        except Exception as error:  # pydantic's, CUDA's, MPI's and the loader's own, in no common tree
            raise EngineError(f"TensorRT-LLM cannot load {bundle.engine_path}: {first_line(error)}") from error
        self._running: dict[_Running, asyncio.Task[None]] = {}
        self._generated_tokens = 0
        self._closed = False

    @classmethod
    def unsupported(cls, llm_args: Mapping[str, Any]) -> Mapping[str, str]:
        if llm_args.get("guided_decoding_backend"):
            return BEYOND_ASCII
        return {"guide": "this engine was built without guides, which TensorRT-LLM has not tested with Mamba layers"}

    @abstractmethod
    def _cached_tokens(self, answer: Any) -> int | None:
        """How many tokens of the prompt of *answer*, a `RequestOutput`, were in the KV cache; None if not told yet."""

    def _abortable(self, _sampling: Sampling) -> bool:
        """Whether TensorRT-LLM survives that a request is aborted; one that is not abortable runs to its end."""
        return True

    def _params(self, sampling: Sampling, prompt_tokens: int) -> Any:
        """The `SamplingParams` of a request; `RequestError` for what this kind does not support."""
        return sampling_params(self._api, sampling, self.manifest, prompt_tokens=prompt_tokens)

    def generate(self, ids: Sequence[int], sampling: Sampling, stream: TokenStream) -> None:
        try:
            if problem := self._problem():
                raise EngineError(problem)
            params = self._params(sampling, len(ids))
            result = self._llm.generate_async(list(ids), sampling_params=params, streaming=True)
        except (ValueError, self._api.RequestError) as error:  # as the LLM API refuses a guide, a number, a prompt
            stream.fail(RequestError(f"TensorRT-LLM refuses the request: {first_line(error)}"))
            return
        except Exception as error:  # ours, or that of a worker that died
            stream.fail(_failure(error))
            return
        ends = end_ids(sampling, self.manifest)
        running = _Running(result, stream, ends, sampling.logprobs, self._abortable(sampling))
        self._running[running] = asyncio.get_running_loop().create_task(self._read(running))
        stream.when_cancelled(lambda: _abort(running))

    def statistics(self) -> EngineStatistics:
        running = tuple(self._running)
        problem = self._problem()
        if problem:
            for request in running:
                request.stream.fail(EngineError(problem))
        active = sum(request.tokens > 0 for request in running)
        return EngineStatistics(
            active_requests=active,
            waiting_requests=len(running) - active,
            generated_tokens=self._generated_tokens,
            problem=problem,
        )

    def close(self) -> None:
        self._closed = True
        for running, task in tuple(self._running.items()):
            running.stream.fail(EngineError(CLOSED))
            # A closed loop has no task left to cancel.
            with contextlib.suppress(RuntimeError):
                task.get_loop().call_soon_threadsafe(task.cancel)
        self._llm.shutdown()

    def _problem(self) -> str | None:
        if self._closed:
            return CLOSED
        # The LLM API checks the same before it takes a request, and has no public name for it.
        executor = self._llm._executor
        return _DEAD if executor is None or executor.is_shutdown() else None

    async def _read(self, running: _Running) -> None:
        result, stream = running.result, running.stream
        try:
            async for answer in result:
                stream.cached_tokens = self._cached_tokens(answer)
                if self._take(running, answer.outputs[0]):
                    return
            raise EngineError("TensorRT-LLM ended an answer without saying why")
        except Exception as error:  # a worker's error is raised by the step that reads it
            stream.fail(_failure(error))
        finally:
            del self._running[running]
            if not result.finished:
                _abort(running)

    def _take(self, running: _Running, output: Any) -> bool:
        """Put the new tokens of *output*, which grows, into the stream; True when they are the last."""
        # TensorRT-LLM removes a stop token that ended the answer, but not always an end token.
        new = output.token_ids[running.tokens :]
        ended = next((place for place, token_id in enumerate(new) if token_id in running.end_ids), None)
        ids = new[:ended]
        logprobs = _logprobs(running, ids, output.logprobs) if running.alternatives is not None else ()
        running.tokens += len(ids)
        self._generated_tokens += len(ids)
        reason = _FINISH_REASONS.get(output.finish_reason) if ended is None else "stop"
        if reason is None and output.finish_reason is not None:
            raise EngineError(f"TensorRT-LLM ended an answer with {output.finish_reason!r}")
        running.stream.put(ids, reason, logprobs, output.stop_reason if ended is None else new[ended])
        return reason is not None


def llm_arguments(bundle: Bundle) -> dict[str, Any]:
    """The arguments of the LLM API: the manifest's, with paths to where the bundle is now."""
    arguments = bundle.manifest.llm_args
    if not arguments:
        raise BundleError(f"the bundle {bundle.path} has no arguments for the LLM API", "build it again")
    # A bundle may come from anywhere; its checkpoint's own code never runs.
    arguments = {**arguments, "trust_remote_code": False}
    for name in ("model", "tokenizer"):
        if not isinstance(arguments.get(name), str):
            raise BundleError(f"the bundle {bundle.path} does not say where its {name} is", "build it again")
        arguments[name] = native_path(bundle.folder(arguments[name]).absolute())
    return arguments


def leave_mpi_job(environment: MutableMapping[str, str]) -> None:
    """Remove the MPI job of tritonserver from *environment*: TensorRT-LLM starts its worker as another job."""
    for name in [name for name in environment if _MPI_JOB.fullmatch(name)]:
        del environment[name]


def _logprobs(running: _Running, ids: Sequence[int], entries: Sequence[Any]) -> tuple[TokenLogprob, ...]:
    """One for each of *ids*; *entries* has all tokens so far: a mapping by id, or the log probability alone."""
    new = entries[running.tokens : running.tokens + len(ids)]
    steps: Iterable[tuple[Any, Any]] = itertools.zip_longest(ids, new, fillvalue={})
    return tuple(_logprob(token_id, step, running.alternatives or 0) for token_id, step in steps)


def _logprob(token_id: int, step: Any, alternatives: int) -> TokenLogprob:
    if not isinstance(step, Mapping):
        return TokenLogprob(float(step))
    likeliest = sorted(((other_id, step[other_id].logprob) for other_id in step), key=lambda pair: -pair[1])
    # A sampled token may not be among the likeliest.
    return TokenLogprob(dict(likeliest).get(token_id), tuple(likeliest[:alternatives]))


def _abort(running: _Running) -> None:
    if not running.abortable:
        return
    try:
        running.result.abort()
    except Exception:  # The executor is gone, and the request with it.
        _log.warning("TensorRT-LLM did not take the end of a request", exc_info=True)


def _failure(error: Exception) -> ServingError:
    return error if isinstance(error, ServingError) else EngineError(f"TensorRT-LLM failed: {first_line(error)}")
