"""JSON that keeps what was written, and strings without halves of characters."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotron_triton.chat import exact_json, surrogates

NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?", fullmatch=True)
STRINGS = st.text(max_size=5).map(lambda text: json.dumps(text, ensure_ascii=False))
TEXTS = st.recursive(
    NUMBERS | STRINGS | st.sampled_from(["true", "false", "null"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(st.sampled_from(['"a"', '"b"']), inner), max_size=3).map(
            lambda pairs: f"{{{', '.join(f'{key}: {value}' for key, value in pairs)}}}"
        )
    ),
    max_leaves=8,
)


@given(TEXTS)
def test_what_is_read_is_written_as_it_was(text: str) -> None:
    assert exact_json.write(exact_json.read(text)) == text


@given(TEXTS)
def test_what_is_read_has_the_value_that_python_reads(text: str) -> None:
    assert json.loads(exact_json.write(exact_json.read(text), indent=1, ensure_ascii=True)) == json.loads(text)


def test_a_repeated_key_means_its_last_value_and_all_are_there() -> None:
    value = exact_json.read('{"a": 1, "b": 2, "a": 3}')

    assert (dict(value), len(value), list(value.items())) == ({"a": 3, "b": 2}, 2, [("a", 1), ("b", 2), ("a", 3)])


@pytest.mark.parametrize("value", [object(), {"a": {1}}])
def test_what_is_no_json_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match="is no JSON"):
        exact_json.write(value)


PIECES = st.sampled_from(["\ud83d", "\ude00", "\U0001f600", "a", "é", "\ufeff"])


@given(st.lists(PIECES).map("".join))
def test_halves_of_characters_are_replaced_and_whole_ones_stay(text: str) -> None:
    whole = surrogates.replaced(text)

    assert whole.encode().decode() == whole
    assert whole.replace("\ufffd", "") == text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")


ESCAPES = st.sampled_from(
    [r"\ud83d", r"\uDE00", r"\ud83d\ude00", r"\\ud83d", r"\\", r"\"", "ud83d", r"\u00e9", "a", "é"]
)


@given(st.lists(ESCAPES).map("".join))
def test_halves_of_characters_in_json_are_replaced_and_all_else_stays(content: str) -> None:
    text = f'{{"a": "{content}"}}'

    whole = surrogates.replaced_in_json(text)

    assert json.loads(whole) == {"a": surrogates.replaced(json.loads(text)["a"])}
