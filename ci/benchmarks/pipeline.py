"""What serving costs beyond the engine: `nemotron` doing everything, beside a Python model that does nothing.

On a real tritonserver, with an engine that replays recorded tokens as fast as they are read. (a) is a bare decoupled
model of the same configuration that sends as many tokens, one in each response; (b) is `nemotron`: render, tokenise,
detokenise, part thinking, answer and calls. CPU time is that of tritonserver and of the model's process, from /proc;
the clients run in another process. Both take turns, so that what else the machine does is in both.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "replay"))

from server import Load, Measured, Server, serving

from nemotron_build.engine import EngineSpec, build
from nemotron_triton.bundle import Bundle

CHECKPOINT = Path(__file__).parents[2] / "build" / "demo" / "checkpoint"
# The models with their names in the tables.
MODELS = {"bare": "(a) bare", "nemotron": "(b) coalescing", "each": "(b) no coalescing"}
# A request that costs little but itself, and how many of them are asked in one measurement.
SHORT_TOKENS, SHORT_REQUESTS = 4, 960
SHORT_STREAMS = (1, 16)
STREAMS, QUICK_STREAMS = (1, 16, 64, 256), (16,)
CROWDS, QUICK_CROWDS = (512, 1024), (512,)
# Tokens of all streams together in one measurement, and the fewest of one stream.
TOKENS, LEAST_TOKENS = 16_000, 200
LONG_TOKENS, LONG_STREAMS, LONG_ROUNDS = 30_000, 8, 150
say = sys.stdout.write


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description="What serving costs beyond the engine.")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each, of which the median is shown")
    parser.add_argument("--quick", action="store_true", help="fewer rows: requests, 16 streams, and 512 at once")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as path:
        build(EngineSpec(checkpoint=CHECKPOINT, gpu="cpu"), Path(path) / "bundle")
        with serving(Path(path), Bundle.open(Path(path) / "bundle")) as server:
            for model in MODELS:
                server.measure(model, Load(streams=16, tokens=LEAST_TOKENS, rounds=4))  # warm
            _requests(server, options.repeats)
            _crowds(server, options.repeats, QUICK_CROWDS if options.quick else CROWDS)
            _tokens(server, options.repeats, QUICK_STREAMS if options.quick else STREAMS)
            _parts(server, (options.repeats + 1) // 2, QUICK_STREAMS if options.quick else STREAMS[:2])
            if not options.quick:
                _lengths(server, (options.repeats + 1) // 2)


def _requests(server: Server, repeats: int) -> None:
    """What a short request costs, beside a bare model that sends as many responses to it."""
    _head(
        "model, streams",
        "tritonserver, µs/request",
        "stub",
        "stub, (b) - (a)",
        "responses",
        "first response, ms",
        "p/s",
    )
    for streams in SHORT_STREAMS:
        load = Load(streams=streams, tokens=SHORT_TOKENS, rounds=SHORT_REQUESTS // streams, text_alone=True)
        bare, ours = [], []
        for _ in range(repeats):
            ours.append(server.measure("nemotron", load))
            bare.append(server.measure("bare", load, responses=round(ours[-1].responses / ours[-1].requests)))
        more_us = _median((b.stub_us - a.stub_us) / a.requests for a, b in zip(bare, ours, strict=True))
        for name, loads, more in (("bare", bare, ""), ("nemotron", ours, f"**{more_us:.0f}**")):
            server_us, stub_us, responses = (
                _median(of(load) / load.requests for load in loads) for of in (_server_us, _stub_us, _responses)
            )
            first_ms = _median(load.first_ms for load in loads)
            speed = _median(load.requests / load.took_s for load in loads)
            label = f"{MODELS[name].split()[0]} {name}, {streams}"
            _row(
                label, f"{server_us:.0f}", f"{stub_us:.0f}", more, f"{responses:.1f}", f"{first_ms:.2f}", f"{speed:.0f}"
            )


def _crowds(server: Server, repeats: int, crowds: Sequence[int]) -> None:
    """When the first response comes to many requests at once."""
    _head("requests at once", "first response, ms, (a)", "(b)", "(b) / (a)", "CPU, (b) / (a)", "both, s, (a)", "(b)")
    for streams in crowds:
        bare, ours = _pairs(server, repeats, Load(streams=streams, tokens=LEAST_TOKENS))
        first = [_median(load.first_ms for load in loads) for loads in (bare, ours)]
        took = [_median(load.took_s for load in loads) for loads in (bare, ours)]
        _row(
            f"{streams}",
            *(f"{ms:.0f}" for ms in first),
            f"**{_ratio(bare, ours, lambda load: load.first_ms):.2f}**",
            f"{_ratio(bare, ours, lambda load: load.total_us):.2f}",
            *(f"{seconds:.1f}" for seconds in took),
        )


def _tokens(server: Server, repeats: int, all_streams: Sequence[int]) -> None:
    """What a token costs in answers of some length."""
    _head("model, streams", "tritonserver, µs/token", "stub", "both", "both, (b) / (a)", "tokens/s", "tokens/response")
    for streams in all_streams:
        load = Load(streams=streams, tokens=max(LEAST_TOKENS, TOKENS // streams))
        measured: dict[str, list[Measured]] = {model: [] for model in MODELS}
        for _ in range(repeats):
            for model in MODELS:
                measured[model].append(server.measure(model, load))
        for model, loads in measured.items():
            ratio = _ratio(measured["bare"], loads, lambda load: load.total_us)
            server_us, stub_us, total_us = (
                _median(of(load) / load.tokens for load in loads) for of in (_server_us, _stub_us, _total_us)
            )
            speed = _median(load.tokens / load.took_s for load in loads)
            size = _median(load.tokens / load.responses for load in loads)
            _row(
                f"{MODELS[model]}, {streams}",
                *(f"{us:.0f}" for us in (server_us, stub_us, total_us)),
                f"{ratio:.2f}",
                f"{speed:,.0f}",
                f"{size:.1f}",
            )


def _parts(server: Server, repeats: int, all_streams: Sequence[int]) -> None:
    """What a request, a response and a token cost by themselves, from loads that differ in one of them.

    Answers of one token, and of many in few and in many responses: three loads, three unknowns.
    """
    _head("model, streams", "request, µs", "response", "token", "of which the stub: request", "response", "token")
    for streams in all_streams:
        one = Load(streams=streams, tokens=1, rounds=SHORT_REQUESTS // streams, text_alone=True)
        many = Load(
            streams=streams, tokens=LEAST_TOKENS, rounds=max(1, TOKENS // LEAST_TOKENS // streams), text_alone=True
        )
        rows: dict[str, list[tuple[float, ...]]] = {"bare": [], "nemotron": []}
        for _ in range(repeats):
            for model, of_each in (("bare", "bare"), ("nemotron", "each")):
                single = server.measure(model, one, responses=1)
                few, each = server.measure(model, many, responses=2), server.measure(of_each, many)
                rows[model].append((*_solved(single, few, each, _total_us), *_solved(single, few, each, _stub_us)))
        for model, row in rows.items():
            _row(f"{model}, {streams}", *(f"{_median(part):.1f}" for part in zip(*row, strict=True)))


def _solved(
    single: Measured, few: Measured, each: Measured, of: Callable[[Measured], float]
) -> tuple[float, float, float]:
    """The cost of a request, a response and a token."""
    one_us, few_us, each_us = (of(load) / load.requests for load in (single, few, each))
    few_responses, each_responses = (load.responses / load.requests for load in (few, each))
    response_us = (each_us - few_us) / (each_responses - few_responses)
    token_us = (few_us - one_us - response_us * (few_responses - 1)) / (few.load.tokens - 1)
    return one_us - response_us - token_us, response_us, token_us


def _lengths(server: Server, repeats: int) -> None:
    """Whether a token of a long answer costs more than one of a short answer."""
    loads = [
        Load(streams=LONG_STREAMS, tokens=tokens, rounds=rounds, text_alone=True)
        for tokens, rounds in ((1, LONG_ROUNDS), (LEAST_TOKENS, LONG_ROUNDS), (LONG_TOKENS, 1))
    ]
    ratios = []
    for _ in range(repeats):
        measured = [server.measure("nemotron", load) for load in loads]
        one, short, long = (load.total_us / load.load.rounds for load in measured)
        ratios.append(((long - one) / (LONG_TOKENS - 1)) / ((short - one) / (LEAST_TOKENS - 1)))
    say(f"\nCPU of each further token, of {LONG_TOKENS:,} / of {LEAST_TOKENS}: {_median(ratios):.2f}\n")


def _pairs(server: Server, repeats: int, load: Load) -> tuple[list[Measured], list[Measured]]:
    pairs = [(server.measure("bare", load), server.measure("nemotron", load)) for _ in range(repeats)]
    return [bare for bare, _ in pairs], [ours for _, ours in pairs]


def _ratio(bare: Sequence[Measured], ours: Sequence[Measured], of: Callable[[Measured], float]) -> float:
    return _median(of(b) / of(a) for a, b in zip(bare, ours, strict=True))


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _server_us(measured: Measured) -> float:
    return measured.server_us


def _stub_us(measured: Measured) -> float:
    return measured.stub_us


def _total_us(measured: Measured) -> float:
    return measured.total_us


def _responses(measured: Measured) -> float:
    return measured.responses


def _head(*columns: str) -> None:
    say("\n")
    _row(*columns)
    _row(*["---"] * len(columns))


def _row(*cells: str) -> None:
    say(f"| {' | '.join(cells)} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
