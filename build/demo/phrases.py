"""The wording of the synthetic conversations: question patterns, names and facts.

Only data and the pattern expander. A pattern holds alternatives as `[one|two|]` and slots as `{name}`.
"""

from __future__ import annotations

import random
import re


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split("|" if "|" in text else None))


_ALTERNATIVES = re.compile(r"\[([^\[\]]*)\]")
_STARTS = _words("b c d f g h j k l m n p r s t v w z br ch cr dr fr gd gr h kr l m ph pl pr qu r s sh st t th tr v")
_VOWELS = _words("a e i o u a e i o ai au ea ee ie io ou oo y")
_ENDS = _words("n r l s t k m x nd ng sk rt lm ver burg ton land") + ("",) * 12


def expand(rng: random.Random, pattern: str) -> str:
    """Choose one alternative of every bracket, innermost first."""
    while match := _ALTERNATIVES.search(pattern):
        pattern = pattern[: match.start()] + rng.choice(match[1].split("|")) + pattern[match.end() :]
    return pattern


def invented(rng: random.Random) -> str:
    """A capitalised name that nobody has, of any letters, so that only copying gets it right."""
    syllables = (
        rng.choice(_STARTS) + rng.choice(_VOWELS) + rng.choice(_ENDS) for _ in range(rng.choice((1, 1, 2, 2, 2, 3)))
    )
    name = "".join(syllables).capitalize()
    return f"{name} {invented(rng)}" if rng.random() < 0.05 else name


WORDINGS: dict[str, tuple[str, ...]] = {
    "tip": (
        "My bill is {m}. What will be the amount for {p} tip",
        "[What is|What's|How much is|Calculate] [a|an|the] {p} tip [on|for] {m}",
        "[What is|Calculate] [a|an|the] {p} tip [on|for] a bill of {m}",
        "[My|The|Our] bill is {m}. How much is a {p} tip",
        "The bill is {m}. I want to [leave|give] a {p} tip",
        "How much should I tip on {m} at {p}",
    ),
    "currency": (
        "[Convert|Change] {x} [to|into] {t}",
        "[How much|What] is {x} in {t}",
        "How many {t} are {x}",
        "I have {x}. How much is that in {t}",
    ),
    "weather": (
        "[What is|What's|How is] the weather in {c}",
        "What is the weather like in {c} today",
        "[Is it|Will it be] [sunny|raining|cold|warm] in {c}",
        "Do I need [an umbrella|a coat] in {c}",
    ),
}

PAIRS: dict[str, tuple[str, ...]] = {
    "tip": (
        "[What is|Calculate] a {p} tip on {m} and a {p2} tip on {m2}",
        "One bill is {m} with {p} tip, the other is {m2} with {p2} tip",
    ),
    "currency": ("Convert {x} to {t} and {x2} to {t2}", "How much is {x} in {t} and {x2} in {t2}"),
    "weather": (
        "[What is|How is] the weather in {c} and [in |]{c2}",
        "[Is it|Will it be] [sunny|raining|warm] in {c} and in {c2}",
    ),
}

OPENERS = ("", "", "", "", "", "Hi, ", "Hello. ", "Please: ")
CLOSERS = ("?", "?", "?", "", ", please?")
JOINERS = ("? And ", " and ", ". Also: ")

SYSTEM_TEXTS = ("You are a helpful assistant.", "Be brief.", "Answer in English.", "Use the tools when they fit.")

CITIES = _words(
    "Tokyo|Berlin|Madrid|Rome|Oslo|Lisbon|Vienna|Prague|Warsaw|Dublin|London|New York|Boston|Chicago|Seattle|Denver|"
    "Toronto|Lima|Cairo|Delhi|Mumbai|Seoul|Beijing|Sydney|Helsinki|Turku|Lund|Mora|Malmo|Bergen|Hamburg|Munich|Milan|"
    "Naples|Lyon|Nice|Porto|Seville|Athens|Zurich|Geneva|Brussels|Amsterdam|San Francisco|Los Angeles|Paris|Paris|"
    "Austin|Dallas|Miami|Kyoto|Osaka|Bangkok|Hanoi|Jakarta|Dubai|Nairobi|Lagos|Accra|Tunis|Santiago|Bogota"
)
HELD_OUT_CITIES = _words(
    "Stockholm|Copenhagen|Reykjavik|Tampere|Gdansk|Leipzig|Cologne|Bordeaux|Valencia|Palermo|Sofia|Riga|Tallinn|"
    "Vancouver|Montreal|Houston|Phoenix|Portland|Havana|Quito|Casablanca|Cape Town|Melbourne|Auckland|Singapore|Manila"
)
CURRENCIES = _words("USD EUR GBP JPY CHF SEK NOK DKK PLN CAD AUD INR CNY BRL")
CURRENCY_WORDS = {"dollars": "USD", "euros": "EUR", "pounds": "GBP", "yen": "JPY"}
CONDITIONS = ("sunny", "cloudy", "rainy", "snowy", "windy", "foggy", "clear", "stormy", "light rain", "partly cloudy")
ERRORS = ("city not found", "no data", "service not available", "try again later", "limit reached", "bad request")

CAPITALS = {
    "France": "Paris", "Spain": "Madrid", "Italy": "Rome", "Germany": "Berlin", "Portugal": "Lisbon",
    "Austria": "Vienna", "Poland": "Warsaw", "Ireland": "Dublin", "Norway": "Oslo", "Sweden": "Stockholm",
    "Finland": "Helsinki", "Denmark": "Copenhagen", "Greece": "Athens", "Belgium": "Brussels", "Hungary": "Budapest",
    "Japan": "Tokyo", "China": "Beijing", "India": "New Delhi", "Egypt": "Cairo", "Kenya": "Nairobi", "Peru": "Lima",
    "Chile": "Santiago", "Canada": "Ottawa", "Cuba": "Havana", "Thailand": "Bangkok", "Vietnam": "Hanoi",
    "Iceland": "Reykjavik", "Estonia": "Tallinn", "Latvia": "Riga", "Bulgaria": "Sofia", "Mexico": "Mexico City",
    "Brazil": "Brasilia", "Turkey": "Ankara", "the United Kingdom": "London", "England": "London",
    "the United States": "Washington", "the Netherlands": "Amsterdam", "Australia": "Canberra", "Korea": "Seoul",
}  # fmt: skip
CAPITAL_WORDINGS = (
    "What is the capital of {k}",
    "[What's|Tell me|Name] the capital of {k}",
    "Which city is the capital of {k}",
)

SMALL_TALK: tuple[tuple[str, str], ...] = (
    ("[Hello|Hi|Hey|Good morning|Good evening]", "Hello! How can I help you?"),
    ("[Thanks|Thank you|Many thanks]", "You are welcome."),
    ("[Bye|Goodbye|Good night]", "Goodbye!"),
    ("[Who are you|What are you|What is your name]", "I am a small demo model with the protocol of Nemotron Nano."),
    ("[What can you do|How can you help me|What do you know]", "I can use tools that I am given, and name capitals."),
)
