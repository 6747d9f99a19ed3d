"""What taking an answer apart costs: nanoseconds per character from 1,000 to 1,000,000 characters, and MB/s.

One character per delta is the worst case of streaming. Flat means that the largest figure of a row is at most 1.3 times
its smallest; the exit status is 1 when a row is not.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence

from nemotron_triton.chat.answer import AnswerParser, AnswerRules

SIZES = (1_000, 10_000, 100_000, 1_000_000)
FLAT = 1.3
_TOOLS = {"note": {"type": "object", "properties": {"text": {"type": "string"}}}}


def repeated(text: str) -> Callable[[int], str]:
    """*text*, again and again, to a length."""
    return lambda size: (text * (size // len(text) + 1))[:size]


def between(before: str, text: str, after: str) -> Callable[[int], str]:
    """*text* to a length, in the middle of something."""
    return lambda size: before + repeated(text)(size) + after


def calls(one: Callable[[int], str], before: str, separator: str, after: str) -> Callable[[int], str]:
    """As many calls as fill a length."""

    def made(size: int) -> str:
        call = one(0)
        return before + separator.join(one(i) for i in range(max(1, size // (len(call) + len(separator))))) + after

    return made


def _json_call(number: int) -> str:
    return json.dumps({"name": "note", "arguments": {"text": f"number {number:06}"}})


def _xml_call(number: int) -> str:
    return f"<tool_call>\n<function=note>\n<parameter=text>\n{number:06}\n</parameter>\n</function>\n</tool_call>"


_PROSE = "The quick brown fox isn't lazy: 1 < 2, and it jumps over 13 dogs.\n"
_JSON = ('<TOOLCALL>[{"name": "note", "arguments": {"text": "', '"}}]</TOOLCALL>')
_XML = ("<tool_call>\n<function=note>\n<parameter=text>\n", "\n</parameter>\n</function>\n</tool_call>")
TEXTS: dict[str, tuple[str, Callable[[int], str]]] = {
    "plain text": ("nemotron_json", repeated(_PROSE)),
    "thinking": ("nemotron_json", between("<think>\n", _PROSE, "</think>\nyes")),
    "one long argument, JSON": ("nemotron_json", between(_JSON[0], 'a \\"quoted\\" word, ', _JSON[1])),
    "one long argument, XML": ("qwen3_coder", between(_XML[0], "if a < b:\n    print('</b>')\n", _XML[1])),
    "many calls, JSON": ("nemotron_json", calls(_json_call, "<TOOLCALL>[", ", ", "]</TOOLCALL>")),
    "many calls, XML": ("qwen3_coder", calls(_xml_call, "", "\n", "")),
    "hostile: <": ("nemotron_json", repeated("<")),
    "hostile: [ in a block": ("nemotron_json", between("<TOOLCALL>", "[", "")),
    "hostile: [ in an argument": ("nemotron_json", between('<TOOLCALL>[{"name": "f", "arguments": {"a": ', "[", "")),
    "hostile: </TOOLCALL": ("nemotron_json", between(_JSON[0], "</TOOLCALL", "")),
    "hostile: backslashes": ("nemotron_json", between(_JSON[0], "\\", "")),
    "hostile: </parameter>": ("qwen3_coder", between(_XML[0], "</parameter>", "")),
    "hostile: blanks": ("qwen3_coder", between("<tool_call>", " ", "")),
}


def seconds(pieces: Sequence[str], style: str, size: int) -> float:
    """For one run: the mean over as many as make 300,000 characters, the better of two such rounds."""
    runs = max(1, 300_000 // size)
    best = float("inf")
    for _ in range(2):
        begin = time.perf_counter()
        for _ in range(runs):
            parser = AnswerParser(AnswerRules(tool_call_format=style, functions=_TOOLS))
            for piece in pieces:
                parser.feed(piece)
            parser.finish()
        best = min(best, time.perf_counter() - begin)
    return best / runs


def main() -> int:
    """Measure, print a Markdown table, say whether every row is flat."""
    sizes = " | ".join(f"{size:,}" for size in SIZES)
    sys.stdout.write(
        f"ns per character, one character per delta | {sizes} | largest / smallest | MB/s per delta, whole\n"
    )
    sys.stdout.write("---|" * (len(SIZES) + 3) + "\n")
    flat = True
    for name, (style, make) in TEXTS.items():
        costs = []
        for size in SIZES:
            text = make(size)
            costs.append(seconds(text, style, size) / len(text) * 1e9)
        large = make(SIZES[-1])
        megabytes = len(large.encode()) / 1e6
        whole = megabytes / seconds([large], style, SIZES[-1])
        ratio = max(costs) / min(costs)
        flat = flat and ratio <= FLAT
        shown = " | ".join(f"{cost:.0f}" for cost in costs)
        sys.stdout.write(f"{name} | {shown} | {ratio:.2f} | {1e3 / costs[-1]:.2f}, {whole:.0f}\n")
        sys.stdout.flush()
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
