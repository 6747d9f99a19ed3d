"""A served engine that fails as a request's seed says: `faulty_model`, which runs in Triton's Python."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from nemotron_triton.bundle import Bundle
from nemotron_triton.serving.settings import Settings
from running import Running, running

# As in faulty_model.py, which only Triton's Python can import.
ANSWER, FAIL_IN_MIDSTREAM, HANG, RAISE_AT_ONCE, DIE, ENDLESS, STUCK, SILENT = range(8)
TEXT = "one two three four five six seven eight nine ten"
_SETTINGS = Settings(max_queue_requests=40, max_queue_ms=4000, max_engine_silence_ms=60_000)


def faulty_server(bundle: Bundle, **limits: int) -> AbstractContextManager[Running]:
    """A server of the model, with *limits*."""
    adapters = {"nemotron": Path(__file__).with_name("faulty_model.py")}
    return running(bundle, adapters=adapters, settings=replace(_SETTINGS, **limits))
