"""Thinking ends at its budget: two generations of a scripted engine, which the reader of an answer takes for one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_requests import CODEC, OPENED, TOOLS, read
from nemotron_triton.bundle import Bundle
from nemotron_triton.engine.stream import TokenStream
from nemotron_triton.errors import EngineError, RequestError
from nemotron_triton.serving.answering import Answering
from nemotron_triton.serving.thinking_budget import GRACE_TOKENS
from scripted_engine import Scripted, ask, ids_of, text_of

LINE = "I count them all again and again.\n"


@pytest.fixture(scope="module")
def opening(bundle: Bundle) -> Bundle:
    """A model whose prompts open the think block."""
    return replace(bundle, manifest=replace(bundle.manifest, profile="nemotron-3-nano-4b"))


@pytest.mark.parametrize("budget", [1, 17, 50])
@pytest.mark.parametrize("place", ["caller", "task", "thread"])
def test_the_model_goes_on_behind_a_closer_that_is_not_its_own(
    bundle: Bundle, opening: Bundle, budget: int, place: Literal["caller", "task", "thread"]
) -> None:
    for model, opener in ((bundle, "<think>\n"), (opening, "")):
        engine = Scripted(f"{opener}{LINE * 20}", place=place)

        answer = ask(model, engine, thinking=True, max_thinking_tokens=budget)

        first, second = engine.asked
        said = text_of(second.ids[len(first.ids) :])
        assert said == f"{opener}{answer.reasoning}\n</think>\n\n"
        assert (LINE * 20).startswith(answer.reasoning)
        assert answer.content == "Forty-two."
        assert answer.finish
        assert (answer.finish.reason, answer.finish.thinking_cut) == ("stop", True)
        assert answer.finish.usage.input_tokens == len(first.ids)
        assert answer.finish.usage.cached_tokens == 10
        assert budget <= answer.tokens[1] <= budget + GRACE_TOKENS + len(ids_of("\n"))
        assert answer.tokens[0] == len(second.ids) - len(first.ids) + len(ids_of("Forty-two."))
        assert second.sampling.max_tokens == first.sampling.max_tokens - (len(second.ids) - len(first.ids))
        assert first.stream.cancelled


@given(data=st.data())
def test_the_answer_does_not_depend_on_how_tokens_came(bundle: Bundle, data: st.DataObject) -> None:
    words = st.sampled_from(["word ", "é", "🙂", "\n", "</", "<", "\n\n", "日本"])
    text = "".join(data.draw(st.lists(words, max_size=60)))
    values: dict[str, Any] = {
        "thinking": True,
        "max_thinking_tokens": data.draw(st.sampled_from([0, 1, 2, 17, 30, 200]) if text else st.just(5)),
        "max_tokens": data.draw(st.integers(20, 200)),
        "top_logprobs": 1,
    }
    if not values["max_thinking_tokens"]:
        del values["thinking"]
    thinking, size = f"<think>\n{text}", data.draw(st.integers(1, 300))

    single = ask(bundle, Scripted(thinking), **values)
    together = ask(bundle, Scripted(thinking, size=size), pause=lambda: 0.0, **values)

    assert together == single
    assert len(single.logprobs) == len(single.ids) == single.tokens[0] <= values["max_tokens"]
    assert "\ufffd" not in single.reasoning or values["max_tokens"] < 40


def test_what_ends_by_itself_within_the_budget_is_one_generation(bundle: Bundle) -> None:
    text = f"<think>\n{LINE}</think>\n\nForty-two."
    engine = Scripted(text)

    limited = ask(bundle, engine, thinking=True, max_thinking_tokens=100)
    free = ask(bundle, Scripted(text), thinking=True)

    assert limited == free
    assert len(engine.asked) == 1


@pytest.mark.parametrize(
    ("text", "budget", "thought"),
    [
        # With the line that goes on at the budget.
        ("One two three.\nFour.\n" + "and " * 50, 3, "One two three."),
        # Between two words, where no line ends within the grace.
        ("word " * 100, 4, None),
        # A word that is longer than the grace is cut.
        ("x" * 300, 4, None),
    ],
)
def test_thinking_ends_at_a_line_or_else_at_a_word(bundle: Bundle, text: str, budget: int, thought: str | None) -> None:
    answer = ask(bundle, Scripted(f"<think>\n{text}"), thinking=True, max_thinking_tokens=budget)

    assert text.startswith(answer.reasoning)
    assert thought is None or answer.reasoning == thought
    assert " " not in text or not text[len(answer.reasoning)].strip()
    assert answer.content == "Forty-two."


@pytest.mark.parametrize("begun", ["<", "</", "</th", "</think"])
def test_a_closer_that_the_model_has_begun_is_continued(bundle: Bundle, begun: str) -> None:
    """Its tokens are several, as in the tokenizers of the Llama models."""
    letters = [token_id for letter in begun for token_id in CODEC.encode_text(letter)]
    ends: set[str] = set()

    for before in range(GRACE_TOKENS + 4):
        thinking = [*ids_of("<think>\n"), *ids_of("x") * before, *letters, *ids_of("y") * 40]
        engine = Scripted(thinking)
        answer = ask(bundle, engine, thinking=True, max_thinking_tokens=3)
        first, second = engine.asked
        closed = text_of(second.ids[len(first.ids) :])
        ends.add(closed.rstrip("y").lstrip("<think>\nx"))

        assert text_of(thinking).startswith(closed.removesuffix("\n</think>\n\n").removesuffix("</think>\n\n"))
        assert (answer.content, closed.count("</think>")) == ("Forty-two.", 1)

    assert "</think>\n\n" in {end[-len("</think>\n\n") :] for end in ends}


@pytest.mark.parametrize(
    ("written", "content"),
    [
        ("</think>\n\nForty-two.", "Forty-two."),
        ("\n</think>\n</think>\n\nForty-two.", "Forty-two."),
        ("so it is 42.\n</think>\n\nForty-two.", "so it is 42.\n\n\nForty-two."),
        ("42.</think> The tag is </think>.", "42. The tag is </think>."),
    ],
)
def test_the_models_own_closer_behind_the_forced_one_is_dropped(bundle: Bundle, written: str, content: str) -> None:
    answer = ask(bundle, Scripted(f"<think>\n{LINE * 9}", written), thinking=True, max_thinking_tokens=5)

    assert answer.content == content


def test_a_closer_in_an_answer_is_text_where_the_model_ended_its_thinking(bundle: Bundle) -> None:
    text = f"<think>\n{LINE}</think>\n\nThe tag is </think>."

    assert ask(bundle, Scripted(text), thinking=True, max_thinking_tokens=500).content == "The tag is </think>."


def test_a_budget_of_zero_switches_thinking_off_in_the_prompt(bundle: Bundle, opening: Bundle) -> None:
    for model in (bundle, opening):
        engine = Scripted("Forty-two.")

        answer = ask(model, engine, max_thinking_tokens=0)

        (asked,) = engine.asked
        off = Answering(model, CODEC, engine).prepare(read(thinking=False))
        assert asked.ids == off.ids
        assert (answer.content, answer.tokens[1]) == ("Forty-two.", 0)


def test_a_model_that_thinks_all_the_same_is_stopped_at_once(bundle: Bundle) -> None:
    answer = ask(bundle, Scripted("<think>\nBut I want to."), max_thinking_tokens=0)

    assert (answer.reasoning, answer.content) == ("", "Forty-two.")
    assert answer.tokens[1] <= 2


def test_a_finished_prompt_that_opens_a_block_is_closed_before_anything_is_generated(bundle: Bundle) -> None:
    engine = Scripted("no")

    answer = ask(bundle, engine, text_input=OPENED, max_thinking_tokens=0)

    (asked,) = engine.asked
    assert text_of(asked.ids) == f"{OPENED}</think>\n\n"
    assert answer.finish
    assert answer.finish.usage.input_tokens == len(ids_of(OPENED))
    assert (answer.reasoning, answer.content, answer.finish.usage.cached_tokens) == ("", "Forty-two.", 10)


def continuing(text: str) -> dict[str, Any]:
    """The values of a request whose last message, *text*, is to be continued."""
    turns = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": text}]
    return {"messages": json.dumps(turns), "continue_final_message": True}


@pytest.mark.parametrize(
    ("begun", "closer"),
    [("Let", "\n</think>\n\n"), ("Let us.\n", "</think>\n\n"), ("Let</thi", "nk>\n\n"), ("Let\n<", "/think>\n\n")],
)
def test_thinking_that_the_prompt_ends_within_is_closed_as_it_stands(bundle: Bundle, begun: str, closer: str) -> None:
    engine = Scripted("no")
    values = continuing(f"<think>\n{begun}")

    answer = ask(bundle, engine, max_thinking_tokens=0, **values)

    (asked,) = engine.asked
    assert text_of(asked.ids).endswith(f"<think>\n{begun}{closer}")
    assert (answer.reasoning, answer.content) == ("", "Forty-two.")


@pytest.mark.parametrize("budget", [None, 100])
@pytest.mark.parametrize(
    ("rest", "reasoning"), [("nk>\n\nForty-two.", ""), ("rd.\n</think>\n\nForty-two.", "rd."), (" nk>", "nk>")]
)
def test_a_closer_that_the_prompt_has_begun_ends_the_thinking(
    bundle: Bundle, budget: int | None, rest: str, reasoning: str
) -> None:
    values: dict[str, Any] = {} if budget is None else {"max_thinking_tokens": budget}

    answer, together = (
        ask(bundle, Scripted(rest, size=size), **continuing("<think>\nLet</thi"), **values) for size in (1, 100)
    )

    assert answer == together
    assert answer.reasoning.strip() == reasoning
    assert answer.content == rest.partition("nk>\n\n")[2]


@pytest.mark.parametrize("opens", [False, True])
def test_a_fifth_of_the_tokens_is_kept_for_the_answer(bundle: Bundle, opening: Bundle, opens: bool) -> None:
    for max_tokens in range(1, 80):
        engine = Scripted("x" * 400 if opens else f"<think>\n{'x' * 400}", "y" * 400)

        answer = ask(
            opening if opens else bundle, engine, thinking=True, max_thinking_tokens=10_000, max_tokens=max_tokens
        )

        prompt = text_of(engine.asked[0].ids)
        assert answer.finish
        assert (answer.finish.reason, answer.tokens[0]) == ("length", max_tokens)
        if "thinking on" in prompt or prompt.endswith("<think>\n"):
            assert len(answer.content) >= max_tokens / 5
        else:
            # There is no room to think.
            assert max_tokens < 14


def test_without_room_for_an_answer_a_finished_prompt_that_thinks_is_refused(bundle: Bundle) -> None:
    answering = Answering(bundle, CODEC, Scripted(""))

    with pytest.raises(RequestError, match="no room for the end of the thinking and an answer; raise max_tokens, "):
        answering.prepare(read(max_thinking_tokens=5, max_tokens=2, text_input=OPENED))


@pytest.mark.parametrize("values", [{"max_thinking_tokens": 5, "max_tokens": 2}, {"max_thinking_tokens": 0}])
def test_what_switches_thinking_off_wins_over_the_system_text(bundle: Bundle, values: dict[str, Any]) -> None:
    turns = [{"role": "system", "content": "detailed thinking on"}, {"role": "user", "content": "hi"}]

    prepared = Answering(bundle, CODEC, Scripted("")).prepare(read(messages=json.dumps(turns), **values))

    assert "detailed thinking off" in prepared.prompt
    assert "detailed thinking on" not in prepared.prompt


def test_thinking_ends_while_the_engine_can_still_read_it_as_a_prompt(bundle: Bundle) -> None:
    """One that reads prompts in one step takes shorter ones than its context is long."""
    engine = Scripted(f"<think>\n{LINE * 50}")
    engine.max_prompt_tokens = 100

    answer = ask(bundle, engine, thinking=True, max_thinking_tokens=10_000)

    _, second = engine.asked
    assert 80 < len(second.ids) <= 100
    assert answer.content == "Forty-two."


def test_stop_words_begin_behind_the_closer(bundle: Bundle) -> None:
    engine = Scripted(f"<think>\n{LINE * 9}", "I count them: 42.")

    answer = ask(bundle, engine, thinking=True, max_thinking_tokens=5, stop_words=("count",))

    assert "count" in answer.reasoning
    assert answer.content == "I "
    assert answer.finish
    assert answer.finish.reason == "stop"


def test_both_generations_have_one_seed_and_one_minimum(bundle: Bundle) -> None:
    engine = Scripted(f"<think>\n{LINE * 9}")

    ask(bundle, engine, thinking=True, max_thinking_tokens=5, seed=7, min_tokens=100, temperature=0.5)

    first, second = engine.asked
    written = len(second.ids) - len(first.ids)
    assert (first.sampling.seed, second.sampling.seed) == (7, 7)
    assert (first.sampling.min_tokens, second.sampling.min_tokens) == (100, 100 - written)
    assert second.sampling == replace(
        first.sampling, min_tokens=100 - written, max_tokens=first.sampling.max_tokens - written
    )


def test_only_the_closer_has_no_log_probabilities(bundle: Bundle) -> None:
    answer = ask(bundle, Scripted(f"<think>\n{LINE * 9}"), thinking=True, max_thinking_tokens=5, top_logprobs=2)

    unknown = [token_id for token_id, of in zip(answer.ids, answer.logprobs, strict=True) if of.logprob is None]
    assert text_of(unknown).strip() == "</think>"
    assert len(answer.logprobs) == answer.tokens[0]


def test_a_forced_call_is_forced_behind_the_closer(bundle: Bundle) -> None:
    call = '<TOOLCALL>[{"name": "f", "arguments": {}}]</TOOLCALL>'
    engine = Scripted(f"<think>\n{LINE * 9}", call)

    answer = ask(bundle, engine, thinking=True, max_thinking_tokens=5, tools=TOOLS, tool_choice="required")

    first, second = (asked.sampling.guide for asked in engine.asked)
    assert first
    assert second
    assert "think" in first.text
    assert "think" not in second.text
    assert first.text.endswith(second.text.removeprefix("root"))
    assert [call.name for call in answer.calls] == ["f"]
    assert answer.finish
    assert answer.finish.reason == "tool_calls"


def test_an_error_of_the_second_generation_ends_the_answer(bundle: Bundle) -> None:
    engine = Scripted(f"<think>\n{LINE * 9}")
    engine.failure = EngineError("the engine is closed")

    with pytest.raises(EngineError, match="the engine is closed"):
        ask(bundle, engine, thinking=True, max_thinking_tokens=5)


@pytest.mark.parametrize(("steps", "generations"), [(3, 1), (150, 2)])
def test_a_reader_that_leaves_stops_the_generation_that_runs(bundle: Bundle, steps: int, generations: int) -> None:
    engine = Scripted(f"<think>\n{'x' * 400}", "y" * 400, place="task")

    async def run() -> None:
        answering = Answering(bundle, CODEC, engine)
        prepared = answering.prepare(read(thinking=True, max_thinking_tokens=50))
        async with contextlib.aclosing(answering.answer(prepared, prepared.sampling, TokenStream())) as answer:
            for _ in range(steps):
                await anext(answer)
        await engine.task

    asyncio.run(run())

    assert [asked.stream.cancelled for asked in engine.asked] == [True] * generations
