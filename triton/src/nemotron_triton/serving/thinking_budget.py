"""An answer whose thinking ends at a budget: two generations of an engine behind one stream of tokens.

No engine can be told to write a token. So at the budget the first generation is cancelled, the tokens of the closer are
put in the model's place, and a second one continues behind prompt, thinking and closer. Who reads the stream sees one
answer, in which the closer counts like one that the model wrote, but has no log probability.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from nemotron_client.events import ReasoningDelta
from nemotron_triton.chat.answer import AnswerParser, AnswerRules
from nemotron_triton.chat.reasoning import CLOSER, OPENER, Thinking, rest_of_closer
from nemotron_triton.chat.render import Prompt
from nemotron_triton.chat.tokens import Detokenizer, TokenCodec
from nemotron_triton.engine.interface import Engine, Guide, Sampling
from nemotron_triton.engine.stream import FinishReason, TokenLogprob, TokenStream
from nemotron_triton.errors import ServingError

# How many tokens of thinking may come behind the budget until a line ends, and the last of them until a word does.
GRACE_TOKENS = 16
_WORD_TOKENS = 4
# Of the rest of a character, which is not cut.
_CHARACTER_TOKENS = 3
# The part of an answer's tokens that thinking leaves: one in so many.
_ANSWER_SHARE = 5
_OPENED, _CLOSED = f"{OPENER}\n", f"{CLOSER}\n\n"
_UNKNOWN = TokenLogprob(None)
_Put: TypeAlias = Callable[[Sequence[int], FinishReason | None, Sequence[TokenLogprob], int | None], None]


class Closer:
    """The end of a think block as tokens of *codec*, for a model with these control tokens.

    `most_tokens` is how many it has at most, in whatever state of a line, or of a closer that was begun.
    """

    def __init__(self, codec: TokenCodec, control_tokens: Sequence[str]) -> None:
        self._codec = codec
        self._control_tokens = tuple(control_tokens)
        states = ("", "a", *(CLOSER[:size] for size in range(1, len(CLOSER))))
        self.most_tokens = max(len(self.behind(state)) for state in states)
        self._tokens_of_opener = len(self._encode(_OPENED))

    def behind(self, text: str) -> list[int]:
        """What ends the thinking of which *text* is the end: on a new line, or the rest of a closer at its end."""
        if (rest := rest_of_closer(text)) != CLOSER:
            return self._codec.encode_text(f"{rest}\n\n")
        return self._encode(_CLOSED if not text or text.endswith("\n") else f"\n{_CLOSED}")

    def opener_tokens(self, begins: Thinking) -> int:
        """How many tokens the model needs to open a block."""
        return self._tokens_of_opener if begins == "model opens" else 0

    def _encode(self, text: str) -> list[int]:
        return self._codec.encode(Prompt(text, "\ufdd0", self._control_tokens))


@dataclass(frozen=True)
class ThinkingBudget:
    """How many *tokens* one answer may think, *closer* that then ends it, and *guide* of the text behind it.

    However large that is, thinking ends when the answer has *latest_tokens*.
    """

    tokens: int
    latest_tokens: int
    closer: Closer
    guide: Guide | None


def latest_tokens(closer: Closer, *, max_tokens: int, max_prompt_tokens: int) -> int:
    """Tokens behind which thinking must end: *closer*, and a share of *max_tokens* for the answer, are still to come.

    *max_prompt_tokens* are those that the second prompt may have more than the first. Below 0 there is no room.
    """
    share = -(-max_tokens // _ANSWER_SHARE)
    return min(max_tokens - share, max_prompt_tokens - _CHARACTER_TOKENS) - closer.most_tokens


class BudgetedGeneration:
    """Generates what follows *prompt* into *stream*, with *sampling* and within *budget*; *rules* say how it begins.

    Tokens are counted as the reader of the stream counts them, from where the think block begins, whoever opens it.
    Thinking ends with the first line that ends behind the budget, after `GRACE_TOKENS` more at the latest, between two
    words if it can, and early enough to leave the answer its share of the tokens. A budget of 0 has no grace.
    """

    def __init__(
        self,
        engine: Engine,
        codec: TokenCodec,
        prompt: Sequence[int],
        rules: AnswerRules,
        sampling: Sampling,
        budget: ThinkingBudget,
        stream: TokenStream,
    ) -> None:
        self._engine = engine
        self._codec = codec
        self._prompt = prompt
        self._sampling = sampling
        self._budget = budget
        self._stream = stream
        self._parser = AnswerParser(rules)
        self._detokenizer = Detokenizer(codec)
        # While the model thinks, or has not begun: the tokens, how many are thinking, and the end of their text.
        self._ids: list[int] = []
        self._thinking_tokens = 0
        self._tail = rules.behind
        self._thought = False
        self._grace = GRACE_TOKENS if budget.tokens else 0
        self._latest = budget.latest_tokens

    def begin(self) -> None:
        """Begin to generate and return at once; on the event loop of the stream."""
        if self._is_over:
            self._close()
        else:
            self._generate(self._prompt, self._sampling, self._put)

    def _generate(self, ids: Sequence[int], sampling: Sampling, put: _Put) -> None:
        self._part = _Part(self._stream, put, is_first=not self._ids)
        self._stream.when_cancelled(self._part.cancel)
        self._engine.generate(ids, sampling, self._part)

    def _put(
        self,
        ids: Sequence[int],
        reason: FinishReason | None,
        logprobs: Sequence[TokenLogprob],
        stop_token_id: int | None,
    ) -> None:
        """Hand on what the first generation puts, up to where thinking is over; in the engine's thread."""
        for place, token_id in enumerate(ids):
            if self._parser.past_reasoning:
                break
            is_next = self._is_over_before(token_id)
            if not is_next:
                self._read(token_id)
            if is_next or self._is_over:
                kept = place if is_next else place + 1
                self._stream.put(ids[:kept], None, logprobs[:kept])
                # Now: an engine that is asked for the second one has the first one's place and cache again.
                self._part.cancel()
                self._stream.call_on_loop(self._close)
                return
        self._stream.put(ids, reason, logprobs, stop_token_id)

    def _read(self, token_id: int) -> None:
        self._ids.append(token_id)
        text = self._detokenizer.feed((token_id,))
        self._tail = (self._tail + text)[-len(CLOSER) :]
        events = self._parser.feed(text)
        self._thought = self._thought or any(isinstance(event, ReasoningDelta) for event in events)
        self._thinking_tokens += self._parser.in_reasoning

    @property
    def _is_over(self) -> bool:
        """Whether thinking must end here."""
        at_line_end = self._thought and self._tail.endswith("\n")
        return self._can_end and self._left <= (0 if at_line_end else -self._grace)

    def _is_over_before(self, token_id: int) -> bool:
        """Whether thinking ends here because *token_id* would begin another word."""
        begins_word = self._codec.bytes_of(token_id)[:1].isspace()
        return begins_word and self._thought and self._can_end and self._left <= _WORD_TOKENS - self._grace

    @property
    def _can_end(self) -> bool:
        # For the answer, the closer apart.
        room = self._sampling.max_tokens - len(self._ids) - self._budget.closer.most_tokens
        within = self._detokenizer.inside_character and room > 1
        return self._parser.in_reasoning and room > 0 and not within

    @property
    def _left(self) -> int:
        """How many tokens of thinking are left, the grace apart."""
        return min(self._budget.tokens - self._thinking_tokens, self._latest - self._grace - len(self._ids))

    def _close(self) -> None:
        """Put the closer, and generate what follows it."""
        if self._stream.cancelled:
            return
        sampling = self._sampling
        closer = self._budget.closer.behind(self._tail)
        self._stream.closer_forced = True
        self._stream.put(closer, None, [] if sampling.logprobs is None else [_UNKNOWN] * len(closer))
        tokens = len(self._ids) + len(closer)
        rest = dataclasses.replace(
            sampling,
            max_tokens=sampling.max_tokens - tokens,
            min_tokens=max(0, sampling.min_tokens - tokens),
            guide=self._budget.guide,
        )
        self._generate([*self._prompt, *self._ids, *closer], rest, self._stream.put)


class _Part(TokenStream):
    """What an engine puts of one generation, given to *put* until it is cancelled; nobody reads it.

    Of the KV cache only that *is_first* has to tell: the second one finds there what the first one has computed.
    """

    def __init__(self, whole: TokenStream, put: _Put, *, is_first: bool) -> None:
        super().__init__()
        self._whole = whole
        self._put = put
        self._is_first = is_first

    def put(
        self,
        ids: Sequence[int],
        finish_reason: FinishReason | None = None,
        logprobs: Sequence[TokenLogprob] = (),
        stop_token_id: int | None = None,
    ) -> None:
        if self.cancelled:
            return
        if self._is_first:
            self._whole.cached_tokens = self.cached_tokens
        self._put(ids, finish_reason, logprobs, stop_token_id)

    def fail(self, error: ServingError) -> None:
        if not self.cancelled:
            self._whole.fail(error)
