"""The LLM API of TensorRT-LLM 1.2.1, which the `tensorrt` and `pytorch` engines share. Not run on hardware.

TensorRT-LLM batches in flight, in this process or in a worker of its own, as the kind wants it;
`TLLM_WORKER_USE_SINGLE_PROCESS`, 1 or 0, says otherwise. What is generated arrives on the event loop, where a task per
request reads it. It is started as in TensorRT-LLM's own Triton model
(`triton_backend/all_models/llmapi/tensorrt_llm/1/model.py`), and used as `llmapi/llm.py`, `sampling_params.py`,
`executor/executor.py` and `executor/result.py` of the 1.2 line are read.

Limits. Its statistics are left alone, because they arrive in a queue of whichever event loop came first: requests and
tokens are counted here. A worker that dies wakes nobody who waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Engine, EngineStatistics, Sampling
from nemotron_triton.engine.llm_sampling import end_ids, sampling_params, unsupported
from nemotron_triton.engine.request_threads import CLOSED
from nemotron_triton.engine.stream import FinishReason, TokenLogprob, TokenStream
from nemotron_triton.errors import BundleError, EngineError, RequestError, ServingError, first_line

_DEAD = "TensorRT-LLM's executor has stopped"
# The others are timeout and cancelled, after which nobody waits who asked for it.
_FINISH_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
# What mpirun or srun tell the processes they start; what is set for MPI itself (`…_MCA_…`) stays.
_MPI_JOB = re.compile(
    r"OMPI_(COMM_WORLD_.*|UNIVERSE_SIZE|FIRST_RANKS|APP_CTX_NUM_PROCS|MCA_orte_.*)|ORTE_.*|PMI_.*|PMIX_(?!MCA_).*"
)
_SINGLE_PROCESS = "TLLM_WORKER_USE_SINGLE_PROCESS"
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Running:
    """One request, from its start to its last token."""

    result: Any
    stream: TokenStream
    end_ids: frozenset[int]
    alternatives: int | None
    tokens: int = 0


class LlmApiEngine(Engine):
    """TensorRT-LLM on one bundle: `_module` has its class `LLM`, `_single_process` keeps its executor in this one."""

    _module: ClassVar[str]
    _single_process: ClassVar[bool]

    def __init__(self, bundle: Bundle, codec: TokenCodec) -> None:
        """Load the model; `EngineError` when TensorRT-LLM cannot be imported or refuses it."""
        super().__init__(bundle, codec)
        arguments = llm_arguments(bundle)
        leave_mpi_job(os.environ)
        if self._single_process:
            os.environ.setdefault(_SINGLE_PROCESS, "1")
        try:
            self._api: Any = importlib.import_module("tensorrt_llm.llmapi")
            llm: Callable[..., Any] = importlib.import_module(self._module).LLM
        # Its libraries raise these where CUDA, MPI or torch are not the ones it was compiled with.
        except (ImportError, OSError, RuntimeError) as error:
            place = self.manifest.container or "a container with TensorRT-LLM 1.2.1"
            raise EngineError(
                f"TensorRT-LLM cannot be imported: {first_line(error)}", f"serve it in {place}"
            ) from error
        try:
            self._llm: Any = llm(**arguments)
        except Exception as error:  # pydantic's, CUDA's, MPI's and the loader's own, in no common tree
            raise EngineError(f"TensorRT-LLM cannot load {bundle.engine_path}: {first_line(error)}") from error
        self.cannot = unsupported(self.manifest) | self._lacking()
        self._running: dict[_Running, asyncio.Task[None]] = {}
        self._generated_tokens = 0
        self._closed = False

    @abstractmethod
    def _lacking(self) -> dict[str, str]:
        """What `cannot` has of this kind alone."""

    @abstractmethod
    def _seed(self, sampling: Sampling) -> int | None:
        """The seed that TensorRT-LLM is given."""

    def generate(self, ids: Sequence[int], sampling: Sampling, stream: TokenStream) -> None:
        try:
            if problem := self._problem():
                raise EngineError(problem)
            params = sampling_params(self._api, sampling, self.manifest, seed=self._seed(sampling))
            result = self._llm.generate_async(list(ids), sampling_params=params, streaming=True)
        except (ValueError, self._api.RequestError) as error:  # as the LLM API refuses a guide, a number, a prompt
            stream.fail(RequestError(f"TensorRT-LLM refuses the request: {first_line(error)}"))
            return
        except Exception as error:  # ours, or what its worker died of
            stream.fail(_failure(error))
            return
        running = _Running(result, stream, end_ids(sampling, self.manifest), sampling.logprobs)
        self._running[running] = asyncio.get_running_loop().create_task(self._read(running))
        stream.when_cancelled(lambda: _abort(result))

    def statistics(self) -> EngineStatistics:
        running = tuple(self._running)
        problem = self._problem()
        if problem:
            for each in running:
                each.stream.fail(EngineError(problem))
        active = sum(each.tokens > 0 for each in running)
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
            # A loop that is closed already has no task left to end.
            with contextlib.suppress(RuntimeError):
                task.get_loop().call_soon_threadsafe(task.cancel)
        self._llm.shutdown()

    def _problem(self) -> str | None:
        if self._closed:
            return CLOSED
        # The LLM API asks the same before it takes a request; it has no public name for the answer.
        executor = self._llm._executor
        return _DEAD if executor is None or executor.is_shutdown() else None

    async def _read(self, running: _Running) -> None:
        """Hand on what comes of one request, to its end."""
        result, stream = running.result, running.stream
        try:
            async for answer in result:
                if self._take(running, answer.outputs[0]):
                    return
            raise EngineError("TensorRT-LLM ended an answer without saying why")
        except Exception as error:  # what a worker reports is raised by the step that reads it
            stream.fail(_failure(error))
        finally:
            del self._running[running]
            if not result.finished:
                _abort(result)

    def _take(self, running: _Running, output: Any) -> bool:
        """Hand on what is new in *output*, which grows; True when it is the last."""
        # A stop token that ended the answer is taken back, an end token may stay.
        new = output.token_ids[running.tokens :]
        ended = next((place for place, token_id in enumerate(new) if token_id in running.end_ids), None)
        ids = new[:ended]
        logprobs = _logprobs(running, ids, output.logprobs) if running.alternatives is not None else ()
        running.tokens += len(ids)
        self._generated_tokens += len(ids)
        reason: FinishReason | None = "stop" if ended is not None else None
        if reason is None and output.finish_reason is not None:
            if output.finish_reason not in _FINISH_REASONS:
                raise EngineError(f"TensorRT-LLM ended an answer with {output.finish_reason!r}")
            reason = _FINISH_REASONS[output.finish_reason]
        running.stream.put(ids, reason, logprobs)
        return reason is not None


def llm_arguments(bundle: Bundle) -> dict[str, Any]:
    """What the LLM API is called with: the manifest's arguments, their paths in the bundle wherever that lies now."""
    arguments = bundle.manifest.llm_args
    if not arguments:
        raise BundleError(f"the bundle {bundle.path} has no arguments for the LLM API", "build it again")
    paths: dict[str, str] = {}
    for name in ("model", "tokenizer"):
        if not isinstance(arguments.get(name), str):
            raise BundleError(f"the bundle {bundle.path} does not say where its {name} is", "build it again")
        paths[name] = str(bundle.folder(arguments[name]).absolute())
    # A bundle may come from anywhere; its checkpoint's own code never runs.
    return {**arguments, **paths, "trust_remote_code": False}


def leave_mpi_job(environment: MutableMapping[str, str]) -> None:
    """Forget the MPI job that tritonserver is in: TensorRT-LLM starts its worker as a job of its own."""
    for name in [name for name in environment if _MPI_JOB.fullmatch(name)]:
        del environment[name]


def _logprobs(running: _Running, ids: Sequence[int], found: Sequence[Any]) -> tuple[TokenLogprob, ...]:
    """One entry for each of *ids*; *found* has one of every token so far: by token, or of the token alone."""
    entries = [*found[running.tokens : running.tokens + len(ids)]]
    entries += [{}] * (len(ids) - len(entries))
    return tuple(
        _logprob(token_id, entry, running.alternatives or 0) for token_id, entry in zip(ids, entries, strict=True)
    )


def _logprob(token_id: int, entry: Any, alternatives: int) -> TokenLogprob:
    if not isinstance(entry, Mapping):
        return TokenLogprob(float(entry))
    # A token that was drawn though it is not among the likeliest is not among them here either.
    own = entry[token_id].logprob if token_id in entry else None
    likeliest = sorted(((other, each.logprob) for other, each in entry.items()), key=lambda pair: -pair[1])
    return TokenLogprob(own, tuple(likeliest[:alternatives]))


def _abort(result: Any) -> None:
    # Where the executor is gone there is nothing left to stop.
    try:
        result.abort()
    except Exception:
        _log.warning("TensorRT-LLM did not take the end of a request", exc_info=True)


def _failure(error: Exception) -> ServingError:
    return error if isinstance(error, ServingError) else EngineError(f"TensorRT-LLM failed: {first_line(error)}")
