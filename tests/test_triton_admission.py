"""Whose turn it is: no slot is lost or given twice, callers take turns, and what can wait waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from nemotron_triton.serving.admission import PRIORITIES, Admission

CALLERS = "abc"
# What happens next: a request of a caller with a priority comes, or the running or waiting one of a number is ended.
Come: TypeAlias = tuple[str, int]
Step: TypeAlias = Come | int
COME = st.tuples(st.sampled_from(CALLERS), st.integers(0, PRIORITIES - 1))
STEPS = st.lists(st.one_of(COME, COME, st.integers(0, 20)), max_size=60)


@dataclass
class Requests:
    """Requests at an `Admission`: all that came, and in which order those began that did."""

    admission: Admission
    came: list[tuple[str, int]] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    began: list[int] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    leave: dict[int, asyncio.Event] = field(default_factory=dict)

    async def come(self, caller: str, priority: int) -> None:
        number = len(self.came)
        self.came.append((caller, priority))
        self.leave[number] = asyncio.Event()
        self.tasks.append(asyncio.create_task(self._run(number)))
        await settled()

    async def _run(self, number: int) -> None:
        async with self.admission.slot(*self.came[number]):
            self.began.append(number)
            self.running.append(number)
            try:
                await self.leave[number].wait()
            finally:
                self.running.remove(number)

    @property
    def waiting(self) -> list[int]:
        return [number for number, task in enumerate(self.tasks) if number not in self.began and not task.done()]

    async def finish(self, number: int) -> None:
        self.leave[number].set()
        await settled()


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(8):
        await asyncio.sleep(0)


def on_a_loop(slots: int, do: Callable[[Requests], Coroutine[Any, Any, None]]) -> Requests:
    async def main() -> Requests:
        requests = Requests(Admission(slots))
        await do(requests)
        for task in requests.tasks:
            task.cancel()
        await asyncio.gather(*requests.tasks, return_exceptions=True)
        return requests

    return asyncio.run(main())


@given(slots=st.integers(1, 3), steps=STEPS, at_once=st.booleans())
def test_slots_are_neither_lost_nor_given_twice_however_requests_end(
    slots: int, steps: Sequence[Step], at_once: bool
) -> None:
    """Also where several are cancelled, and others end, in one step of the loop."""

    async def do(requests: Requests) -> None:
        for step in steps:
            if not isinstance(step, int):
                await requests.come(*step)
            elif requests.tasks:
                number = step % len(requests.tasks)
                requests.leave[requests.running[0] if requests.running else number].set()
                if not at_once:
                    await asyncio.sleep(0)
                requests.tasks[number].cancel()
                if not at_once:
                    await settled()
            assert len(requests.running) <= slots
        await settled()
        assert len(requests.running) == min(slots, len(requests.running) + len(requests.waiting))
        for task in requests.tasks:
            task.cancel()
        await settled()
        for _ in range(slots + 1):
            await requests.come("z", 0)
        assert len(requests.running) == slots

    on_a_loop(slots, do)


@given(slots=st.integers(1, 3), steps=st.lists(st.one_of(COME, COME, st.just(0)), max_size=60))
def test_turns_are_fair_and_priorities_hold(slots: int, steps: Sequence[Step]) -> None:
    """Whoever begins has no older request of the same kind waiting, nobody before it, and nobody waited longer."""

    async def do(requests: Requests) -> None:
        passed: dict[tuple[str, int], set[str]] = {}
        for step in [*steps, *[0] * len(steps)]:
            if not isinstance(step, int):
                await requests.come(*step)
                continue
            if not requests.running:
                continue
            waiting = requests.waiting
            began = len(requests.began)
            await requests.finish(requests.running[0])
            assert len(requests.began) == began + bool(waiting)
            if not waiting:
                continue
            number = requests.began[-1]
            caller, priority = requests.came[number]
            assert priority == min(requests.came[other][1] for other in waiting)
            assert number == min(other for other in waiting if requests.came[other] == (caller, priority))
            passed.pop((caller, priority), None)
            for other in {requests.came[other] for other in waiting} - {(caller, priority)}:
                if other[1] == priority:
                    # Between two turns of one who waits, each other caller has one at most.
                    assert caller not in passed.setdefault(other, set())
                    passed[other].add(caller)

    on_a_loop(slots, do)


def test_a_flood_of_one_caller_does_not_hold_up_another() -> None:
    async def do(requests: Requests) -> None:
        for _ in range(50):
            await requests.come("a", 0)
        await requests.come("b", 0)
        for number in range(2):
            await requests.finish(number)
        assert 50 in requests.began

    on_a_loop(1, do)


def test_one_who_gave_up_costs_its_caller_no_turn() -> None:
    async def do(requests: Requests) -> None:
        for caller in "aaba":
            await requests.come(caller, 0)
        # In one step of the loop.
        requests.leave[0].set()
        requests.tasks[1].cancel()
        await settled()
        assert requests.began == [0, 3]

    on_a_loop(1, do)


def test_what_raises_gives_its_slot_back() -> None:
    async def main() -> None:
        admission = Admission(1)
        for _ in range(3):
            with contextlib.suppress(ValueError):
                async with admission.slot("a"):
                    raise ValueError
        async with asyncio.timeout(5), admission.slot("a"):
            pass

    asyncio.run(main())
