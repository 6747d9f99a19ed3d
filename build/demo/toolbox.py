"""The tools of the synthetic conversations: what a user may ask, how a tool is described, what it returns.

Pure and seeded. Numbers and names in a call are the literal text of the question: copying is all there is to learn.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import phrases


@dataclass(frozen=True)
class Intent:
    """A thing users ask for, and its tool."""

    topic: str
    name: str
    descriptions: tuple[str, ...]
    parameters: tuple[str, ...]
    types: tuple[str, ...]
    hints: tuple[str, ...]


@dataclass(frozen=True)
class Tool:
    """An intent's tool as one request describes it."""

    intent: str
    name: str
    parameters: tuple[str, ...]
    spec: dict[str, Any]


@dataclass(frozen=True)
class Ask:
    """One thing a user wants: the words for the question's slots and the JSON literals for the call."""

    intent: str
    slots: dict[str, str]
    literals: tuple[str, ...]

    @property
    def values(self) -> tuple[str, ...]:
        """The literals as words: strings lose their quotes, numbers stay as they were written."""
        return tuple(literal.strip('"') for literal in self.literals)


@dataclass(frozen=True)
class Result:
    """What a tool returned, the sentence that reports it and the words this sentence must contain."""

    content: str
    sentence: str
    facts: tuple[str, ...]


INTENTS: dict[str, Intent] = {
    "tip": Intent(
        "a tip", "calculate_tip", ("Calculate the tip for a bill", "Calculate a tip"),
        ("bill_total", "tip_percentage"), ("number", "number"),
        ("The total amount of the bill", "The percentage of tip to be applied"),
    ),
    "currency": Intent(
        "currency", "convert_currency", ("Convert an amount between currencies", "Convert money"),
        ("amount", "from_currency", "to_currency"), ("number", "string", "string"),
        ("The amount to convert", "Currency code to convert from", "Currency code to convert to"),
    ),
    "weather": Intent(
        "the weather", "get_weather", ("Get the weather of a city", "Current weather"),
        ("city",), ("string",), ("Name of the city",),
    ),
}  # fmt: skip


def tool(rng: random.Random, intent: str) -> Tool:
    """Describe the tool of *intent*, with or without hints to its parameters."""
    about = INTENTS[intent]
    hinted = rng.random() < 0.3
    number = rng.choice(("number", "number", "integer"))
    properties: dict[str, Any] = {}
    for parameter, kind, hint in zip(about.parameters, about.types, about.hints, strict=True):
        properties[parameter] = {"type": number if kind == "number" else kind}
        if hinted:
            properties[parameter]["description"] = hint
    schema = {"type": "object", "properties": properties, "required": list(about.parameters)}
    function = {"name": about.name, "description": rng.choice(about.descriptions), "parameters": schema}
    return Tool(intent, about.name, about.parameters, {"type": "function", "function": function})


def ask(rng: random.Random, intent: str, cities: Sequence[str]) -> Ask:
    """Make up one wish for *intent*."""
    match intent:
        case "tip":
            bill, percent = money(rng), percentage(rng)
            written = rng.choice((f"${bill}",) * 5 + (f"{bill} dollars", f"€{bill}", f"£{bill}", f"{bill} euros", bill))
            rate = rng.choice((f"{percent}%",) * 4 + (f"{percent} percent",))
            return Ask(intent, {"m": written, "p": rate}, (bill, percent))
        case "currency":
            amount = money(rng)
            spoken, source = _currency(rng)
            target_word, target = _currency(rng)
            while target == source:
                target_word, target = _currency(rng)
            sign = {"USD": "$", "EUR": "€", "GBP": "£"}.get(source)
            written = f"{sign}{amount}" if sign and rng.random() < 0.3 else f"{amount} {spoken}"
            return Ask(intent, {"x": written, "t": target_word}, (amount, f'"{source}"', f'"{target}"'))
        case _:
            city = place(rng, cities)
            return Ask(intent, {"c": city}, (f'"{city}"',))


def call_text(spelled: Tool, wish: Ask) -> str:
    """The JSON of one call, with the literals as the user wrote them."""
    pairs = ", ".join(f'"{name}": {literal}' for name, literal in zip(spelled.parameters, wish.literals, strict=True))
    return f'{{"name": "{spelled.name}", "arguments": {{{pairs}}}}}'


def result(rng: random.Random, wish: Ask) -> Result:
    """What the tool returns for *wish*, now and then an error."""
    if rng.random() < 0.04:
        error = rng.choice(phrases.ERRORS)
        return Result(json.dumps({"error": error}), f"The tool failed: {error}.", (error,))
    number = money(rng, whole=0.3)
    match wish.intent:
        case "tip":
            key = rng.choice(("tip", "tip_amount", "result"))
            return Result(f'{{"{key}": {number}}}', f"The tip is {number}.", (number,))
        case "currency":
            key, target = rng.choice(("amount", "converted", "result")), wish.values[2]
            return Result(f'{{"{key}": {number}}}', f"That is {number} {target}.", (number, target))
        case _:
            city, sky, degrees = wish.values[0], rng.choice(phrases.CONDITIONS), str(rng.randint(-20, 40))
            content = f'{{"condition": "{sky}", "temperature": {degrees}}}'
            return Result(content, f"It is {sky} in {city}, {degrees} degrees.", (sky, city, degrees))


def money(rng: random.Random, *, whole: float = 0.6) -> str:
    """An amount as people write it: 100, 45.50, now and then 8887.81."""
    if rng.random() < whole:
        return str(rng.choice((10 * rng.randint(1, 20), rng.randint(1, 200), rng.randint(1, 2000))))
    units = rng.choice((rng.randint(1, 99), rng.randint(1, 999), rng.randint(1, 9999)))
    return f"{units}.{rng.randint(0, 99):02}"


def percentage(rng: random.Random) -> str:
    """A tip rate."""
    return str(rng.choice((10, 12, 15, 18, 20, 25, rng.randint(5, 30))))


def place(rng: random.Random, cities: Sequence[str]) -> str:
    """A city of the list, or one that does not exist: most of them, so that names are copied and not known."""
    return rng.choice(cities) if rng.random() < 0.15 else phrases.invented(rng)


def _currency(rng: random.Random) -> tuple[str, str]:
    """How a currency is said, and its code."""
    if rng.random() < 0.2:
        return rng.choice(tuple(phrases.CURRENCY_WORDS.items()))
    code = rng.choice(phrases.CURRENCIES)
    return code, code
