"""What taking an answer apart costs: nanoseconds per character up to 1,000,000 characters, and MB/s.

One character per delta is the worst case of streaming; some four are what a token has. Parsers that have read texts of
several lengths take turns, a thousand characters each, so that a machine whose speed changes treats them alike; medians
over the turns are shown.
Flat means that the largest figure of a row is at most 1.3 times its smallest; the exit status is 1 when a row is not.
The end of the text, where what was held back is decided, is a column of its own.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable

from nemotron_triton.chat.answer import AnswerParser, AnswerRules

DEPTHS = (1_000, 10_000, 100_000, 1_000_000)
_STRETCH = 1_000
_TURNS = 21
FLAT = 1.3
_TOOLS = {"note": {"type": "object", "properties": {"text": {"type": "string"}}}}


def repeated(text: str) -> Callable[[int], str]:
    """*text*, again and again, to a length."""
    return lambda size: (text * (size // len(text) + 1))[:size]


def between(before: str, text: str, after: str) -> Callable[[int], str]:
    """*text* to a length, in the middle of something."""
    return lambda size: before + repeated(text)(size) + after


def calls(write: Callable[[int], str], before: str, separator: str, after: str) -> Callable[[int], str]:
    """As many calls as fill a length; *write* writes the one of a number."""

    def text(size: int) -> str:
        count = max(1, size // (len(write(0)) + len(separator)))
        return before + separator.join(map(write, range(count))) + after

    return text


def _json_call(number: int) -> str:
    return json.dumps({"name": "note", "arguments": {"text": f"number {number:06}"}})


def _xml_call(number: int) -> str:
    return f"<tool_call>\n<function=note>\n<parameter=text>\n{number:06}\n</parameter>\n</function>\n</tool_call>"


_PROSE = "The quick brown fox isn't lazy: 1 < 2, and it jumps over 13 dogs.\n"
_JSON = ('<TOOLCALL>[{"name": "note", "arguments": {"text": "', '"}}]</TOOLCALL>')
_XML = ("<tool_call>\n<function=note>\n<parameter=text>\n", "\n</parameter>\n</function>\n</tool_call>")
# By name: the format of calls, the text, and how many characters come at once.
TEXTS: dict[str, tuple[str, Callable[[int], str], int]] = {
    "plain text": ("nemotron_json", repeated(_PROSE), 1),
    "plain text, 4 at once": ("nemotron_json", repeated(_PROSE), 4),
    "one long argument, JSON, 4 at once": ("nemotron_json", between(_JSON[0], 'a \\"quoted\\" word, ', _JSON[1]), 4),
    "one long argument, XML, 4 at once": (
        "qwen3_coder",
        between(_XML[0], "if a < b:\n    print('</b>')\n", _XML[1]),
        4,
    ),
    "thinking": ("nemotron_json", between("<think>\n", _PROSE, "</think>\nyes"), 1),
    "one long argument, JSON": ("nemotron_json", between(_JSON[0], 'a \\"quoted\\" word, ', _JSON[1]), 1),
    "one long argument, XML": ("qwen3_coder", between(_XML[0], "if a < b:\n    print('</b>')\n", _XML[1]), 1),
    "many calls, JSON": ("nemotron_json", calls(_json_call, "<TOOLCALL>[", ", ", "]</TOOLCALL>"), 1),
    "many calls, XML": ("qwen3_coder", calls(_xml_call, "", "\n", ""), 1),
    "hostile: <": ("nemotron_json", repeated("<"), 1),
    "hostile: [ in a block": ("nemotron_json", between("<TOOLCALL>", "[", ""), 1),
    "hostile: [ in an argument": ("nemotron_json", between('<TOOLCALL>[{"name": "f", "arguments": {"a": ', "[", ""), 1),
    "hostile: </TOOLCALL": ("nemotron_json", between(_JSON[0], "</TOOLCALL", ""), 1),
    "hostile: backslashes": ("nemotron_json", between(_JSON[0], "\\", ""), 1),
    "hostile: </parameter>": ("qwen3_coder", between(_XML[0], "</parameter>", ""), 1),
    "hostile: blanks": ("qwen3_coder", between("<tool_call>", " ", ""), 1),
}


def new_parser(style: str) -> AnswerParser:
    """A parser at the beginning of an answer."""
    return AnswerParser(AnswerRules(tool_call_format=style, functions=_TOOLS))


def seconds(parser: AnswerParser, text: str, size: int) -> float:
    """How long *text* takes, *size* characters per delta."""
    deltas = [text[start : start + size] for start in range(0, len(text), size)]
    begin = time.perf_counter()
    for delta in deltas:
        parser.feed(delta)
    return time.perf_counter() - begin


def costs_ns(text: str, style: str, size: int) -> tuple[list[float], float]:
    """Nanoseconds per character at each depth, and for the end per character of the whole text."""
    parsers = [new_parser(style) for _ in DEPTHS]
    starts = [min(depth, len(text) - _TURNS * _STRETCH) for depth in DEPTHS]
    pairs = list(zip(parsers, starts, strict=True))
    for parser, start in pairs:
        seconds(parser, text[:start], size)
    turns = [
        [seconds(parser, text[start + turn * _STRETCH :][:_STRETCH], size) for parser, start in pairs]
        for turn in range(_TURNS)
    ]
    begin = time.perf_counter()
    parsers[-1].finish()
    end = time.perf_counter() - begin
    costs = [statistics.median(column) / _STRETCH * 1e9 for column in zip(*turns, strict=True)]
    return costs, end / len(text) * 1e9


def whole_mb_per_s(text: str, style: str) -> float:
    """Megabytes a second when *text* comes in one piece."""
    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        parser = new_parser(style)
        parser.feed(text)
        parser.finish()
        best = min(best, time.perf_counter() - begin)
    return len(text.encode()) / 1e6 / best


def main() -> int:
    """Measure, print a Markdown table, say whether every row is flat."""
    depths = " | ".join(f"at {depth:,}" for depth in DEPTHS)
    sys.stdout.write(f"| ns per character | {depths} | largest / smallest | end | MB/s by delta | MB/s whole |\n")
    sys.stdout.write("|---" * (len(DEPTHS) + 5) + "|\n")
    flat = True
    for name, (style, make, size) in TEXTS.items():
        text = make(DEPTHS[-1])
        costs, end = costs_ns(text, style, size)
        ratio = max(costs) / min(costs)
        flat = flat and ratio <= FLAT
        shown = " | ".join(f"{cost:.0f}" for cost in costs)
        speeds = f"{1e3 / (costs[-1] + end):.2f} | {whole_mb_per_s(text, style):.1f}"
        sys.stdout.write(f"| {name} | {shown} | {ratio:.2f} | {end:.0f} | {speeds} |\n")
        sys.stdout.flush()
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
