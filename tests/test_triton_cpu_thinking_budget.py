"""Thinking ends at its budget on the real engine, and the demo model answers behind it."""

from __future__ import annotations

import asyncio
import json

from chat_answers import Read, read_answer
from chat_requests import CODEC, OPENED, read
from cpu_engine import running, until_idle
from nemotron_triton.bundle import Bundle
from nemotron_triton.serving.answering import Answering
from nemotron_triton.serving.thinking_budget import GRACE_TOKENS

QUESTION = json.dumps([{"role": "user", "content": "What is the capital of Sweden?"}])
TIP = json.dumps([{"role": "user", "content": "My bill is $100. What will be the amount for 18% tip?"}])
CALCULATE_TIP = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "calculate_tip",
                "parameters": {
                    "type": "object",
                    "properties": {"bill_total": {"type": "integer"}, "tip_percentage": {"type": "integer"}},
                    "required": ["bill_total", "tip_percentage"],
                },
            },
        }
    ]
)
GUIDE = {
    "guided_decoding_guide_type": "json_schema",
    "guided_decoding_guide": json.dumps(
        {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": False,
        }
    ),
}


def test_the_real_engine_answers_behind_its_thinking(bundle: Bundle) -> None:
    async def run() -> dict[int, Read]:
        async with running(bundle) as engine:
            answering = Answering(bundle, CODEC, engine)
            answers = {
                budget: await read_answer(
                    answering, read(messages=QUESTION, thinking=True if budget else None, max_thinking_tokens=budget)
                )
                for budget in (0, 1, 17, 500)
            }
            answers[-1] = await read_answer(answering, read(messages=QUESTION, thinking=True))
            await until_idle(engine)
            return answers

    answers = asyncio.run(run())

    assert all(answer.content.endswith(".") for answer in answers.values())
    assert answers[0].reasoning == ""
    assert answers[1].reasoning
    assert answers[-1].reasoning.startswith(answers[1].reasoning)
    assert answers[1].tokens[1] <= 1 + GRACE_TOKENS + 1
    assert answers[500] == answers[-1]
    assert answers[500].tokens[1] > answers[1].tokens[1]


def test_the_real_engine_closes_a_block_that_the_prompt_opened(bundle: Bundle) -> None:
    async def run() -> dict[int, Read]:
        async with running(bundle) as engine:
            answering = Answering(bundle, CODEC, engine)
            prompt = answering.prepare(read(messages=QUESTION, thinking=True)).prompt + "<think>\n"
            return {
                budget: await read_answer(answering, read(text_input=prompt, max_thinking_tokens=budget))
                for budget in (0, 1, 17, 500)
            }

    answers = asyncio.run(run())

    assert all(answer.content.endswith(".") for answer in answers.values())
    assert (answers[0].reasoning, answers[0].tokens[1]) == ("", 0)
    assert all(0 < answers[budget].tokens[1] <= budget + GRACE_TOKENS + 1 for budget in (1, 17, 500))
    assert answers[500].reasoning.startswith(answers[1].reasoning)


def test_the_real_engine_has_the_prompt_and_the_thinking_cached(bundle: Bundle) -> None:
    """And the first generation has left its place when the second one begins."""

    async def run() -> tuple[int | None, int, int]:
        async with running(bundle) as engine:
            answering = Answering(bundle, CODEC, engine)
            answer = await read_answer(answering, read(messages=QUESTION, thinking=True, max_thinking_tokens=1))
            assert answer.finish
            return answer.finish.usage.cached_tokens, answer.tokens[0], engine.statistics().generated_tokens

    cached, read_tokens, generated = asyncio.run(run())

    assert cached == 0
    # The closer was not generated; of the thinking, a few tokens more than were read.
    assert read_tokens - 3 <= generated <= read_tokens + 3


def test_the_real_engine_follows_a_guide_behind_the_closer(bundle: Bundle) -> None:
    async def run() -> list[Read]:
        async with running(bundle) as engine:
            answering = Answering(bundle, CODEC, engine)
            values = {"thinking": True, "max_tokens": 300, "seed": 1}
            return [
                await read_answer(answering, read(messages=QUESTION, max_thinking_tokens=5, **values, **GUIDE)),
                await read_answer(
                    answering,
                    read(messages=TIP, max_thinking_tokens=2, tools=CALCULATE_TIP, tool_choice="required", **values),
                ),
                await read_answer(answering, read(messages=TIP, max_thinking_tokens=2, tools=CALCULATE_TIP, **values)),
            ]

    guided, forced, free = asyncio.run(run())

    assert guided.reasoning
    assert json.loads(guided.content).keys() == {"city"}
    assert [call.name for call in forced.calls] == ["calculate_tip"]
    assert [call.name for call in free.calls] == ["calculate_tip"]


def test_the_real_engine_keeps_to_any_limit_and_always_answers(bundle: Bundle) -> None:
    async def run() -> dict[int, Read]:
        async with running(bundle) as engine:
            answering = Answering(bundle, CODEC, engine)
            return {
                limit: await read_answer(
                    answering, read(messages=QUESTION, thinking=True, max_thinking_tokens=500, max_tokens=limit)
                )
                for limit in (1, 2, 5, 11, 12, 20, 30, 60)
            }

    for limit, answer in asyncio.run(run()).items():
        assert answer.content.strip()
        assert answer.tokens[0] <= limit


def test_seeded_answers_repeat(random_bundle: Bundle) -> None:
    """On a model that writes anything: broken characters, tags, control tokens."""
    hot = {"max_tokens": 80, "end_id": -1, "temperature": 1.5}

    async def run() -> list[Read]:
        async with running(random_bundle) as engine:
            answering = Answering(random_bundle, CODEC, engine)
            return [
                await read_answer(
                    answering,
                    read(text_input=OPENED, max_thinking_tokens=9, seed=seed, **hot),
                )
                for seed in (1, 1, 2, 3, 4, 5)
            ]

    answers = asyncio.run(run())

    assert answers[0] == answers[1] != answers[2]
    for answer in answers:
        assert answer.tokens[0] == 80
        assert answer.tokens[1] <= 9 + GRACE_TOKENS + 4
