"""Conversations as token ids, for calibration and for measuring: read from JSON Lines, rendered with our templates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemotron_build.errors import BuildError
from nemotron_triton.chat import reasoning
from nemotron_triton.chat.conversation import read_conversation
from nemotron_triton.chat.profiles import Profile
from nemotron_triton.chat.render import RenderOptions, render_prompt
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.errors import RequestError

CALIBRATION = Path(__file__).with_name("calibration.jsonl")
HELD_OUT = Path(__file__).with_name("held_out.jsonl")
MAX_FILE_BYTES = 256 * 1024 * 1024
MAX_LINE_CHARS = 1024 * 1024
# As in NVIDIA/TensorRT-LLM at c8c6df0, examples/quantization/quantize.py: 512 samples of 512 tokens, the rest cut.
MAX_TOKENS_EACH = 512
MAX_QUALITY_TOKENS = 4096
MAX_PROMPT_TOKENS = 4096


@dataclass(frozen=True)
class Sample:
    """A conversation as token ids: what the model reads, and what it wrote last (nothing if the user spoke last)."""

    prompt: list[int]
    answer: list[int]


def read_samples(path: Path, profile: Profile, codec: TokenCodec, *, max_samples: int) -> list[Sample]:
    """The first *max_samples* conversations of *path*; `BuildError` names the line that is wrong.

    A line is `{"messages": [...], "tools": [...], "thinking": true}`, the last two optional, with messages and tools as
    OpenAI's API has them.
    """
    samples: list[Sample] = []
    for number, line in _lines(path):
        if len(samples) == max_samples:
            break
        try:
            samples.append(_sample(json.loads(line), profile, codec))
        except (ValueError, RecursionError, RequestError) as error:
            raise BuildError(f"{path}, line {number}: {error}") from error
    if not samples:
        raise BuildError(f"{path} holds no conversation; give JSON lines with messages")
    return samples


def count_samples(path: Path) -> int:
    """How many conversations *path* holds."""
    return sum(1 for _ in _lines(path))


def to_calibrate(samples: Iterable[Sample]) -> list[list[int]]:
    """Token ids to calibrate on, each conversation cut at 512."""
    return [(sample.prompt + sample.answer)[:MAX_TOKENS_EACH] for sample in samples]


def to_measure(samples: Iterable[Sample]) -> list[list[list[int]]]:
    """Pairs of prompt and answer to measure the answers of, up to 4096 answer tokens in all.

    The source's logits are kept on disk, 2 GB of them at 128k words. Prompts of more than 4096 tokens are left out.
    """
    kept: list[list[list[int]]] = []
    room = MAX_QUALITY_TOKENS
    for sample in samples:
        if room and sample.answer and len(sample.prompt) <= MAX_PROMPT_TOKENS:
            kept.append([sample.prompt, sample.answer[:room]])
            room -= len(kept[-1][1])
    if not kept:
        raise BuildError("quality is measured on answers, and none of the conversations ends with one")
    return kept


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise BuildError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB; a few hundred conversations do")
        # Not splitlines: JSON strings may hold what it takes for the end of a line.
        lines = data.decode("utf-8-sig").split("\n")
    except OSError as error:
        raise BuildError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BuildError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    for number, line in enumerate(lines, start=1):
        if len(line) > MAX_LINE_CHARS:
            raise BuildError(f"{path}, line {number}: longer than {MAX_LINE_CHARS >> 20} MiB; leave it out")
        if line.strip():
            yield number, line


def _sample(raw: Any, profile: Profile, codec: TokenCodec) -> Sample:
    if not isinstance(raw, dict):
        raise ValueError("a sample must be an object with messages")
    conversation = read_conversation(raw.get("messages"), raw.get("tools"))
    thinking = raw.get("thinking")
    if not isinstance(thinking, (bool, type(None))):
        raise ValueError(f"thinking is true or false, not {thinking!r}")
    whole = render_prompt(profile, conversation, RenderOptions(thinking=thinking, add_generation_prompt=False))
    *history, last = conversation.messages
    if last.role != "assistant" or not history:
        return Sample(codec.encode(whole), [])
    prompt = render_prompt(profile, replace(conversation, messages=tuple(history)), RenderOptions(thinking=thinking))
    answer = whole.marked.removeprefix(prompt.marked)
    if len(answer) == len(whole.marked):
        # A template that writes history otherwise than what the model is to continue: no telling where it began.
        return Sample(codec.encode(whole), [])
    if last.reasoning and last.reasoning not in answer:
        # Templates drop the reasoning of earlier turns; here the last turn is what the model is writing.
        beginning = reasoning.begins(profile.reasoning_format, thinking=True, prompt=prompt.text)
        answer = reasoning.written(last.reasoning, beginning) + answer
    return Sample(codec.encode(prompt), codec.encode(replace(whole, marked=answer)))
