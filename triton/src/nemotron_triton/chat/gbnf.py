"""Pieces of GBNF, the grammar notation of llama.cpp and XGrammar: literals, characters, and the rules of any JSON.

Blanks between the tokens of JSON are at most one, numbers have at most 20 digits, arrays and objects at most 256
members with names of at most 64 characters, and values whose schema says nothing are nested five levels deep: nothing
but a string goes on for ever.
"""

from __future__ import annotations

import functools
import json
import re

from nemotron_triton.chat.expressions import SPACES_BEYOND_ASCII
from nemotron_triton.chat.numerals import Spelling
from nemotron_triton.chat.regular import ASCII, Automaton, Budget, Characters, among, characters, common, rules, without

MAX_ITEMS = 256
# Of the names in objects that no schema gives.
MAX_NAME = 64
# Beyond ASCII, in all classes of a grammar together, each as often as it is used: some 4 s of XGrammar's time.
MAX_WRITTEN_OUT = 70_000
COMMA, COLON = 'ws "," ws', 'ws ":" ws'
_FREE_LEVELS = 5
# What JSON writes as a backslash and a letter.
_ESCAPES = {'"': '"', "\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
_IN_LITERAL = {
    **{code: f"\\u{code:04x}" for code in (*range(0x20), 0x7F)},
    **{ord(char): f"\\{letter}" for char, letter in {'"': '"', "\\": "\\", "\n": "n", "\r": "r"}.items()},
}
# Those of any text: no half of a surrogate pair, and never NUL, which no engine takes for a character.
_TEXT: Characters = ((1, 0xD7FF), (0xE000, 0x10FFFF))
_BEYOND_ASCII = without(ASCII)
_POINT = r"\\u[0-9a-f]{4}|\\U[0-9a-f]{8}|[^\\]"
_RANGE = re.compile(f"({_POINT})(?:-({_POINT}))?")
_LITERAL_OR_CLASS = re.compile(r'"(?:\\.|[^"\\])*"|\[(\^?)((?:\\.|[^\]\\])*)\]')
_PLAIN: Characters = without(((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C)))
_STRINGS = r"""ws ::= " "?
string ::= "\"" char* "\""
name ::= "\"" char{0,64} "\""
char ::= [^\u0022\u005c\u0000-\u001f] | "\\" (["\\/bfnrt] | "u" code)
code ::= [0-9a-ce-fA-CE-F] hex hex hex | [dD] ([0-7] hex hex | [89abAB] hex hex "\\u" [dD] [c-fC-F] hex hex)
hex ::= [0-9a-fA-F]
boolean ::= "true" | "false"
"""


def literal(text: str) -> str:
    """*text* as a GBNF string, with quotes, backslashes and control characters escaped."""
    return f'"{text.translate(_IN_LITERAL)}"'


def json_text(value: object) -> str:
    """*value* as models write JSON."""
    return json.dumps(value, ensure_ascii=False)


def plain(chars: Characters) -> str | None:
    """One of *chars*, as it is; None where there is none.

    Never NUL, which no engine takes for a character of a text, nor half a surrogate pair, which is none.
    """
    if chars[-1][1] == 0x10FFFF:
        return f"[^{_ranges(without(chars) or among(chr(0)))}]"
    chars = common(chars, _TEXT)
    return f"[{_ranges(chars)}]" if chars else None


def listed(grammar: str) -> str:
    """*grammar*, of ours, with each `[^…]` as a list of the characters that it stands for.

    llama.cpp takes for `[^…]` also bytes that are no character.
    """
    return _LITERAL_OR_CLASS.sub(lambda found: _listed(found[2]) if found[1] else found[0], grammar)


@functools.lru_cache(maxsize=1024)
def _listed(excluded: str) -> str:
    return f"[{_ranges(common(_TEXT, without(_chars(excluded))))}]"


@functools.lru_cache(maxsize=64)
def written_out(grammar: str) -> str | None:
    r"""*grammar*, of ours, with each character beyond ASCII in a class as a literal; None where they are too many.

    XGrammar 0.1.25 misreads classes of them, but for `[^…]` of ASCII only. It cannot be told that `[^…]` lacks a space
    or the end of a line beyond ASCII, which `.` and `\S` are not.
    """
    names: dict[Characters, str] = {}
    size = 0

    def written(found: re.Match[str]) -> str:
        nonlocal size
        if found[2] is None:
            return found[0]
        chars = _chars(found[2])
        if found[1]:
            excluded = common(chars, without(SPACES_BEYOND_ASCII))
            if not common(excluded, _BEYOND_ASCII):
                return f"[^{_ranges(excluded or among(chr(0)))}]"
            chars = common(_TEXT, without(chars))
        elif not common(chars, _BEYOND_ASCII):
            return found[0]
        size += sum(last - first + 1 for first, last in common(chars, _BEYOND_ASCII))
        return names.setdefault(chars, f"written{len(names)}")

    text = _LITERAL_OR_CLASS.sub(written, grammar)
    if size > MAX_WRITTEN_OUT:
        return None
    lines = []
    for chars, name in names.items():
        within, beyond = common(chars, ASCII), common(chars, _BEYOND_ASCII)
        literals = [literal(chr(point)) for first, last in beyond for point in range(first, last + 1)]
        lines.append(f"{name} ::= {' | '.join([*([f'[{_ranges(within)}]'] if within else []), *literals])}")
    return "\n".join([text, *lines])


def _chars(ranges: str) -> Characters:
    """What the class `[ranges]` stands for."""
    return characters((_code(first), _code(last or first)) for first, last in _RANGE.findall(ranges))


def _code(point: str) -> int:
    return int(point[2:], 16) if point.startswith("\\") else ord(point)


def in_string(chars: Characters) -> str | None:
    """One of *chars* inside a JSON string, the others escaped; None where all are control characters without a name."""
    shown = common(chars, _PLAIN)
    letters = [letter for char, letter in _ESCAPES.items() if common(chars, among(char))]
    spellings = [text] if shown and (text := plain(shown)) else []
    if letters:
        spellings.append(rf'"\\" [{_ranges(among("".join(letters)))}]')
    return f"({' | '.join(spellings)})" if len(spellings) > 1 or letters else "".join(spellings) or None


def repeated(item: str, least: int, most: int | None) -> str:
    """*item* from *least* to *most* times; None is any number."""
    if (least, most) == (1, 1):
        return item
    if (least, most) == (0, 1):
        return f"({item})?"
    if most is None and not least:
        return f"({item})*"
    return f"({item}){{{least},{'' if most is None else most}}}" if most != 0 else '""'


def either(alternatives: list[str]) -> str:
    """One of *alternatives*."""
    return alternatives[0] if len(alternatives) == 1 else f"({' | '.join(alternatives)})"


def language(automaton: Automaton, name: str) -> list[str]:
    """The rules for a language of ours, which is small and not empty."""
    return rules(automaton, name, plain, Budget(1000)) or []


def _ranges(chars: Characters) -> str:
    return "".join(_point(a) if a == b else f"{_point(a)}-{_point(b)}" for a, b in chars)


def _point(point: int) -> str:
    char = chr(point)
    if char.isascii() and (char.isalnum() or char in " <>/=_"):
        return char
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"


def _free_values() -> str:
    """The rules of any JSON value, a rule for each level of nesting."""
    lines = []
    for level in range(_FREE_LEVELS):
        name = f"-{level}" if level else ""
        kinds = ["string", "number", "boolean", '"null"']
        if level < _FREE_LEVELS - 1:
            inner = f"value-{level + 1}"
            pair = f"name {COLON} {inner}"
            lines += [
                f'object{name} ::= "{{" ws ({pair} ({COMMA} {pair}){{0,{MAX_ITEMS - 1}}})? ws "}}"',
                f'array{name} ::= "[" ws ({inner} ({COMMA} {inner}){{0,{MAX_ITEMS - 1}}})? ws "]"',
            ]
            kinds += [f"object{name}", f"array{name}"]
        lines.append(f"value{name} ::= {' | '.join(kinds)}")
    return "\n".join(lines)


# Rules that every grammar needs.
RULES = "\n".join(
    [
        *_STRINGS.splitlines(),
        *language(Spelling(integer=True, exact=False), "integer"),
        *language(Spelling(integer=False, exact=False), "number"),
        _free_values(),
    ]
)
