"""A model's text split into thinking, answer and tool calls while it streams.

One parser is fed with text deltas; a whole text is a stream of one delta, so the two cannot differ. Whitespace next to
a marker is layout and dropped; every other character comes out once: as thinking, answer, or part of a call.
How a block of calls is read is up to its format.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nemotron_client.events import ContentDelta, Event, Problem, ReasoningDelta, ToolCall, ToolCallDelta
from nemotron_triton.chat import reasoning, surrogates
from nemotron_triton.chat.answer_text import EndTokens, VisibleText
from nemotron_triton.chat.calls import Block, FoundCall
from nemotron_triton.chat.conversation import ToolChoice
from nemotron_triton.chat.formats import call_format
from nemotron_triton.chat.profiles import Profile
from nemotron_triton.chat.source import BLANKS, Source, Tags, Wait, tags_of
from nemotron_triton.chat.stop_words import StopWords
from nemotron_triton.chat.written import Written

_CLOSER = Tags(reasoning.CLOSER)
_FENCE_END = re.compile(r"[\s`~]+")


@dataclass(frozen=True, kw_only=True)
class AnswerRules:
    """What one answer may contain, and how it begins.

    *functions* are the parameter schemas of the request's functions by name; with None, calls of any function count.
    *begins* says whether the answer begins with a think block, and whether the prompt has opened it; of that, *behind*
    is the end of the prompt, which the answer may go on within a closer.
    """

    tool_call_format: str
    end_tokens: tuple[str, ...] = ()
    begins: reasoning.Thinking = "none"
    behind: str = ""
    functions: Mapping[str, Any] | None = None
    choice: ToolChoice = ToolChoice()
    parallel: bool = True

    @property
    def expects_calls(self) -> bool:
        """Whether call markup means anything; without tools it is text like any other."""
        return self.functions != {} and self.choice.mode != "none"


def answer_rules(
    profile: Profile,
    functions: Iterable[Mapping[str, Any]] | None,
    *,
    begins: reasoning.Thinking,
    prompt: str = "",
    choice: ToolChoice = ToolChoice(),
    parallel: bool = True,
) -> AnswerRules:
    """The rules for an answer of *profile*'s model to *prompt*, with these OpenAI `function` objects."""
    return AnswerRules(
        tool_call_format=profile.tool_call_format,
        end_tokens=profile.end_tokens,
        begins=begins,
        behind=prompt[-len(reasoning.CLOSER) :] if begins == "opened" else "",
        functions=None if functions is None else {tool["name"]: tool.get("parameters") for tool in functions},
        choice=choice,
        parallel=parallel,
    )


class AnswerParser:
    """Takes the text of one answer in pieces of any size, and returns events as soon as they are certain.

    `repairs` counts calls whose JSON had to be repaired. `in_reasoning` and `past_reasoning` tell where the text is.
    Set `closer_forced` where the closer is not the model's: it may yet write its own, which is dropped. The answer ends
    before the first of *stop_words*. With *stream_calls* the arguments of calls come as they are written, each
    `ToolCall` behind its `ToolCallDelta`s.
    """

    def __init__(self, rules: AnswerRules, stop_words: Sequence[str] = (), *, stream_calls: bool = False) -> None:
        self._rules = rules
        self._source = Source()
        self._format = call_format(rules.tool_call_format)
        self._openers = self._format.openers if rules.expects_calls else ()
        self._stop_words = StopWords(stop_words) if stop_words else None
        self._thought = VisibleText(lambda text: self._events.append(ReasoningDelta(text)), at_marker=True)
        self._content = VisibleText(
            lambda text: self._events.append(ContentDelta(text)), self._stop_words, at_marker=False
        )
        self._events: list[Event] = []
        self._ends = EndTokens(rules.end_tokens)
        self._called: list[str] = []
        self._stream_calls = stream_calls
        self._begun_calls = 0
        self._open: _OpenCall | None = None
        self._unread = ""
        self._skips: list[tuple[str, str]] = []
        self._quotes = True
        self.problems: list[Problem] = []
        self.repairs = 0
        self.in_reasoning = rules.begins == "opened"
        self.past_reasoning = False
        self.closer_forced = False
        self._steps = self._answer()
        next(self._steps)

    @property
    def called_tools(self) -> bool:
        """Whether a tool call was found."""
        return bool(self._called)

    @property
    def stop_word(self) -> str | None:
        """The stop word that ended the answer; no event comes behind it."""
        return self._stop_words.word if self._stop_words else None

    def feed(self, text: str) -> list[Event]:
        """The events that *text* makes certain."""
        return self._advance(self._ends.feed(text))

    def finish(self, *, cut: bool = False) -> list[Event]:
        """The remaining events, after the last text; call it once.

        *cut* says that the token limit ended the answer: an incomplete call then stays text.
        """
        self._source.feed(self._ends.finish())
        self._source.end(cut=cut)
        events = self._advance("")
        choice = self._rules.choice
        satisfied = choice.name in self._called if choice.mode == "named" else bool(self._called)
        if choice.forced and not satisfied and self.stop_word is None:
            self._problem("tool_choice_unsatisfied", function=choice.name)
        return events

    def _advance(self, text: str) -> list[Event]:
        self._source.feed(text)
        next(self._steps, None)
        if self._open:
            self._write_on(self._open)
        events, self._events = self._events, []
        return events

    def _answer(self) -> Wait[None]:
        source = self._source
        blanks = yield from source.run(BLANKS)
        closer = reasoning.CLOSER if blanks else reasoning.rest_of_closer(self._rules.behind)
        marker = yield from source.accept(tags_of(*dict.fromkeys((reasoning.OPENER, reasoning.CLOSER, closer))))
        closed = marker in (reasoning.CLOSER, closer)
        if marker == reasoning.OPENER or (self.in_reasoning and not closed):
            self.in_reasoning, blanks = True, ""
            closed = yield from self._reasoning()
        self.in_reasoning, self.past_reasoning = False, True
        if closed:
            self._content.marker()
            blanks = yield from source.run(BLANKS)
            while (yield from source.accept(_CLOSER)):
                blanks = yield from source.run(BLANKS)
        self._content.write(blanks)
        yield from self._text_and_calls()

    def _reasoning(self) -> Wait[bool]:
        """Read the think block up to its closer; False when that never comes.

        A call in it is part of the thinking. Only one that ends the answer counts: the model forgot the closer.
        """
        source, thought = self._source, self._thought
        tags = tags_of(reasoning.CLOSER, *self._openers)
        while (tag := (yield from source.until(tags, thought.write))) in self._openers:
            if thought.fences.closers():
                thought.write(tag)
            elif (yield from self._quoted(tag, _CLOSER, BLANKS, thought)):
                return False
        if not tag:
            thought.finish()
        return bool(tag)

    def _quoted(self, tag: str, limit: Tags, end: re.Pattern[str], text: VisibleText) -> Wait[bool]:
        """Read calls from the opener *tag* on, up to *limit*: calls if only *end* is behind them, else part of *text*.

        Calls are given back, to be read where they count.
        """
        source, sure_from = self._source, self._source.sure_from
        more = tags_of(*self._openers, *self._format.closers)
        read: list[str] = []
        source.limit(limit)
        while tag:
            found: list[FoundCall] = []
            source.mark()
            if tag in self._openers:
                block = Block(source, self._rules.functions or {}, found.append, lambda _code: None)
                yield from self._format.read(block, tag)
            read.append(tag + source.since_mark())
            if not found and tag in self._openers:
                break
            read.append((yield from source.run(BLANKS)))
            tag = yield from source.accept(more)
        source.unlimit()
        if not tag:
            read.append((yield from source.run(end)))
            if (yield from source.peek()) == "" and not source.cut:
                source.unread("".join(read))
                source.sure_from = sure_from
                self._quotes = False
                return True
        text.write("".join(read))
        return False

    def _text_and_calls(self) -> Wait[None]:
        source, content = self._source, self._content
        openers = tags_of(*self._openers)
        looked_for = tags_of(*self._openers, reasoning.CLOSER) if self.closer_forced else openers
        while (tag := (yield from source.until(looked_for, content.write))) and self.stop_word is None:
            looked_for = openers
            if tag not in self._openers:
                continue  # the closer of a block that was text from some point on, or of thinking
            if self._quotes and (fence := content.fences.closers()):
                yield from self._quoted(tag, fence, _FENCE_END, content)
            elif (yield from self._block(tag)):
                looked_for = tags_of(*self._openers, *self._format.closers)
        content.finish()

    def _block(self, opener: str) -> Wait[bool]:
        """Read the block of calls that *opener* began; whether it has calls, and its closer may still come."""
        source, content = self._source, self._content
        self._unread = opener
        source.mark()
        begin = self._begin if self._stream_calls else None
        block = Block(source, self._rules.functions or {}, self._found, self._skipped, begin)
        problem = yield from self._format.read(block, opener)
        rest = source.since_mark()
        if self._unread and (self._skips or problem is not None):
            content.write("".join([self._unread, *(text for _, text in self._skips), rest]))
            if code := self._skips[0][0] if self._skips else problem:
                self._problem(code)
            self._skips.clear()
            return False
        self._report_skips()
        if problem:
            self._broken(problem, rest)
            return True
        content.marker()
        closers, blanks = self._format.closers, rest[len(rest.rstrip()) :]
        if not rest.endswith(closers):
            content.write(blanks)
            return True
        blanks = yield from source.run(BLANKS)
        while (yield from source.accept(tags_of(*closers))):
            blanks = yield from source.run(BLANKS)  # the closer twice
        content.write(blanks)
        return False

    def _skipped(self, code: str) -> None:
        text = self._source.since_mark()
        self._source.mark()
        if self._unread:
            self._skips.append((code, text))
        else:
            self._broken(code, text)

    def _broken(self, code: str, text: str) -> None:
        """Report a call that is none, behind one that was sent or begun. What was sent of it stays open."""
        if self._open:
            self._write_on(self._open)
            self._problem(code, function=self._open.name)
            self._open = None
        else:
            self._problem(code, text=text)

    def _report_skips(self) -> None:
        """Report the unusable calls before a good one."""
        for code, text in self._skips:
            self._problem(code, text=text)
        self._skips.clear()

    def _certain(self) -> None:
        """Note that the block has a call, and is text no more."""
        self._unread = ""
        self._report_skips()
        self._content.marker()

    def _begin(self, name: str) -> Written | None:
        """Tell that a call of *name* begins, if its arguments are to be sent as they come."""
        functions = self._rules.functions
        if (functions is not None and name not in functions) or (self._called and not self._rules.parallel):
            return None
        self._certain()
        self._open = self._next_call(name)
        self._events.append(self._open.delta(""))
        return self._open.written

    def _next_call(self, name: str) -> _OpenCall:
        self._begun_calls += 1
        return _OpenCall(self._begun_calls - 1, f"call_{secrets.token_hex(12)}", name)

    def _write_on(self, call: _OpenCall) -> None:
        if new := call.whole_characters.feed(call.written.new()):
            self._events.append(call.delta(new))

    def _found(self, call: FoundCall) -> None:
        self._source.mark()
        self._certain()
        self.repairs += call.repaired
        if self._called and not self._rules.parallel:
            self._problem("surplus_tool_call", function=call.name)
            return
        if self._rules.functions is not None and call.name not in self._rules.functions:
            self._problem("unknown_function", function=call.name)
        if not call.arguments_json.startswith("{"):
            self._problem("invalid_arguments", function=call.name)
        opened, self._open = self._open or self._next_call(call.name), None
        arguments = surrogates.replaced_in_json(call.arguments_json)
        if self._stream_calls:
            self._events.append(opened.delta(arguments[opened.sent :]))
        self._events.append(ToolCall(index=opened.index, id=opened.id, name=call.name, arguments_json=arguments))
        self._called.append(call.name)

    def _problem(self, code: str, *, function: str = "", text: str = "") -> None:
        self.problems.append(Problem(code=code, function=function, text=text))


@dataclass
class _OpenCall:
    """A call whose arguments are not all there; the first delta tells its id and name."""

    index: int
    id: str
    name: str
    written: Written = field(default_factory=Written)
    whole_characters: surrogates.ReplacedInJson = field(default_factory=surrogates.ReplacedInJson)
    told: bool = False
    sent: int = 0

    def delta(self, arguments_json: str) -> ToolCallDelta:
        first, self.told = not self.told, True
        self.sent += len(arguments_json)
        return ToolCallDelta(
            index=self.index,
            arguments_json=arguments_json,
            id=self.id if first else "",
            name=self.name if first else "",
        )


def parse_whole(text: str, rules: AnswerRules, *, cut: bool = False) -> tuple[list[Event], list[Problem]]:
    """The events of a finished answer, and what was wrong with it.

    The same as streaming it, with one exception that needs the whole text: a model that was asked to think and closes a
    think block that it never opened was thinking up to there.
    """
    openers = call_format(rules.tool_call_format).openers if rules.expects_calls else ()
    first = tags_of(reasoning.OPENER, reasoning.CLOSER, *openers).pattern.search(text)
    if rules.begins == "model opens" and first and first[0] == reasoning.CLOSER:
        rules = replace(rules, begins="opened")
    parser = AnswerParser(rules)
    return [*parser.feed(text), *parser.finish(cut=cut)], parser.problems
