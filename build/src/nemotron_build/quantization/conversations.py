"""Conversations as token ids, for calibration and for measuring: read from JSON Lines, rendered with our templates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from nemotron_build.errors import BuildError
from nemotron_triton.chat.conversation import read_conversation
from nemotron_triton.chat.profiles import Profile
from nemotron_triton.chat.render import RenderOptions, render_prompt
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.errors import RequestError

CALIBRATION = Path(__file__).with_name("calibration.jsonl")
HELD_OUT = Path(__file__).with_name("held_out.jsonl")
MAX_FILE_BYTES = 256 * 1024 * 1024
# TensorRT-LLM's own calibration reads 512 samples of 512 tokens (facts of `quantize.py`); longer ones are cut.
MAX_TOKENS_EACH = 512
MAX_QUALITY_TOKENS = 4096


def read_token_ids(path: Path, profile: Profile, codec: TokenCodec, *, max_samples: int) -> list[list[int]]:
    """The first *max_samples* conversations of *path* as token ids, each cut at 512; `BuildError` names a bad line.

    A line is `{"messages": [...], "tools": [...], "thinking": true}`, the last two optional, with messages and tools as
    OpenAI's API has them.
    """
    samples: list[list[int]] = []
    for number, line in _lines(path):
        if len(samples) == max_samples:
            break
        try:
            ids = _ids(json.loads(line), profile, codec)[:MAX_TOKENS_EACH]
        except (ValueError, RecursionError, RequestError) as error:
            raise BuildError(f"{path}, line {number}: {error}") from error
        if len(ids) > 1:
            samples.append(ids)
    if not samples:
        raise BuildError(f"{path} holds no conversation; give JSON lines with messages")
    return samples


def limit_tokens(samples: list[list[int]]) -> list[list[int]]:
    """*samples* up to 4096 tokens in all: a reference's logits are kept on disk, 2 GB of them at 128k words."""
    kept: list[list[int]] = []
    room = MAX_QUALITY_TOKENS
    for ids in samples:
        if room > 1:
            kept.append(ids[:room])
            room -= len(kept[-1])
    return kept


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BuildError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB; a few hundred conversations do")
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BuildError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BuildError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _ids(sample: Any, profile: Profile, codec: TokenCodec) -> list[int]:
    """The prompt and the answer as the model would have read and written them, thinking included."""
    if not isinstance(sample, dict):
        raise ValueError("a sample must be an object with messages")
    conversation = read_conversation(sample.get("messages"), sample.get("tools"))
    thinking = sample.get("thinking")
    if not isinstance(thinking, (bool, type(None))):
        raise ValueError(f"thinking is true or false, not {thinking!r}")
    whole = render_prompt(profile, conversation, RenderOptions(thinking=thinking, add_generation_prompt=False))
    *history, last = conversation.messages
    if last.role != "assistant" or not history or not last.reasoning:
        return codec.encode(whole)
    # Templates drop the reasoning of earlier turns; here the last turn is what the model is writing.
    prompt = render_prompt(profile, replace(conversation, messages=tuple(history)), RenderOptions(thinking=thinking))
    answer = whole.marked.removeprefix(prompt.marked)
    if len(answer) == len(whole.marked) or last.reasoning in answer:
        return codec.encode(whole)
    opener = "" if prompt.opens_thinking else "<think>\n"
    thought = f"{opener}{last.reasoning}\n</think>\n\n"
    return codec.encode(replace(whole, marked=prompt.marked + thought + answer))
