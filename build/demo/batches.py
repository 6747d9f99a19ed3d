"""What the model is trained on, as token rows: lessons sorted by length, and synthetic copy sequences.

Only tokens the assistant writes (or, in copy sequences, tokens that repeat) count for the loss.
"""

from __future__ import annotations

import random
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from tokenizers import Tokenizer
from torch import Tensor

from conversations import Conversation, lessons
from nemotron_triton.chat.conversation import read_conversation
from nemotron_triton.chat.profiles import profile
from nemotron_triton.chat.render import RenderOptions, render_prompt
from tokenizer import END_OF_TURN, FIXED, SPECIAL, token_id

_PROFILE = profile("llama-nemotron-nano-4b-v1.1")
_POOL = 32
_LONGEST = 512
_USER_TURN = "<|start_header_id|>user<|end_header_id|>"


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right; where predictions count, as flat indices of `ids`, and the tokens that follow there."""

    ids: Tensor
    counted: Tensor
    targets: Tensor


@dataclass(frozen=True)
class _Row:
    ids: list[int]
    counted: list[bool]


def prompt(conversation: Conversation) -> str:
    """The prompt as the server renders it."""
    messages = read_conversation(conversation.messages, conversation.tools)
    return render_prompt(_PROFILE, messages, RenderOptions(thinking=conversation.thinking)).text


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of *text*, control tokens recognised."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def lesson_batches(tokenizer: Tokenizer, seed: int, rows: int, *, without: Container[str]) -> Iterator[Batch]:
    """Batches without end, each of rows of nearly one length, none with a prompt in *without*."""
    source = _rows(tokenizer, seed, without)
    rng = random.Random(seed)  # noqa: S311 - seeded on purpose
    while True:
        pool = sorted(islice(source, rows * _POOL), key=lambda row: len(row.ids))
        starts = list(range(0, len(pool), rows))
        rng.shuffle(starts)
        for start in starts:
            yield _batch(pool[start : start + rows])


def copy_batches(tokenizer: Tokenizer, seed: int, rows: int) -> Iterator[Batch]:
    """Batches without end of markers with random tokens behind them, then the same markers in another order."""
    rng = random.Random(seed)  # noqa: S311 - seeded on purpose
    special = {token_id(tokenizer, text) for text in SPECIAL + FIXED}
    tokens = [token for token in range(tokenizer.get_vocab_size()) if token not in special]
    digits = [token_id(tokenizer, digit) for digit in "0123456789."]
    while True:
        yield _batch([_copy_row(rng, tokens, digits) for _ in range(rows)])


def _rows(tokenizer: Tokenizer, seed: int, without: Container[str]) -> Iterator[_Row]:
    for lesson in lessons(seed):
        ids: list[int] = []
        counted: list[bool] = []
        for conversation in lesson:
            text = prompt(conversation)
            if text in without:
                continue
            if ids:
                # The system prompt stands once; what follows it is this question's own.
                text = _USER_TURN + text.split(_USER_TURN, 1)[1]
            before, after = encode(tokenizer, text), encode(tokenizer, conversation.expected + END_OF_TURN)
            if len(ids) + len(before) + len(after) > _LONGEST:
                break
            ids += before + after
            counted += [False] * len(before) + [True] * len(after)
        if ids:
            yield _Row(ids, counted)


def _copy_row(rng: random.Random, tokens: Sequence[int], digits: Sequence[int]) -> _Row:
    markers = rng.sample(tokens, rng.randint(3, 7))
    after = {marker: rng.choices(digits if rng.random() < 0.5 else tokens, k=rng.randint(1, 7)) for marker in markers}
    ids = [token for marker in markers for token in (marker, *after[marker])]
    counted = [False] * len(ids)
    for marker in rng.sample(markers, len(markers)):
        ids += [marker, *after[marker]]
        counted += [False] + [True] * len(after[marker])
    return _Row(ids, counted)


def _batch(rows: Sequence[_Row]) -> Batch:
    length = max(len(row.ids) for row in rows) - 1
    ids = torch.zeros((len(rows), length), dtype=torch.long)
    counted, targets = [], []
    for i, row in enumerate(rows):
        ids[i, : len(row.ids) - 1] = torch.tensor(row.ids[:-1])
        places = [j for j, counts in enumerate(row.counted) if counts]
        counted += [i * length + j - 1 for j in places]
        targets += [row.ids[j] for j in places]
    return Batch(ids, torch.tensor(counted), torch.tensor(targets))
