"""Arguments checked against a schema: what is refused, and that no text of a model takes for ever."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from nemotron_client.errors import InvalidArguments, InvalidRequest
from nemotron_client.events import ToolCall
from nemotron_client.functions.shapes import Misfit
from nemotron_client.functions.validation import Validation
from nemotron_client.tools import BoundCall, Tool, Toolbox

# The longest time for any result, with room for a machine that is busy with more than these tests.
PATIENCE_S = 60


def bind(parameters: dict[str, Any], arguments: object) -> dict[str, Any]:
    """The arguments of a function with *parameters*; *arguments* that are text are JSON already."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    toolbox = Toolbox([Tool("f", parameters=parameters, function=dict)])
    return toolbox.bind(ToolCall(index=0, id="", name="f", arguments_json=text)).arguments


def fits(parameters: dict[str, Any], arguments: dict[str, Any]) -> bool:
    try:
        Validation(parameters).check(arguments)
    except Misfit:
        return False
    return True


def of_x(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": schema}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as JSON: Expecting value"),
        ("{", "cannot be read as JSON"),
        ("{} {}", "cannot be read as JSON: Extra data"),
        ("null", "is null; it must be an object of arguments by name"),
        ("[]", r"is \[\]; it must be an object"),
        ('{"x": 1, "x": 2}', 'cannot be read as JSON: "x" is there twice'),
        ('{"x": {"y": 1, "y": 1}}', '"y" is there twice'),
        ('{"x": NaN}', "NaN is no number that JSON has"),
        ('{"x": [-Infinity]}', "-Infinity is no number that JSON has"),
        ('{"x": 1e999}', "1e999 is no number that JSON has"),
        (f'{{"x": {"9" * 5000}}}', "cannot be read as JSON: Exceeds the limit"),
        (f'{{"x": "{"a" * (1 << 20)}"}}', "has 1048585 characters; at most 1048576 are accepted"),
        (f'{{"x": [{"1," * 20_000}1]}}', "holds more than 20000 values"),
        (f'{{"x": {"[" * 64}{"]" * 64}}}', "is nested more than 64 levels deep"),
        (f'{{"x": {"[" * 100_000}{"]" * 100_000}}}', "is nested more than 64 levels deep"),
    ],
    ids=lambda text: text[:20],
)
def test_arguments_that_are_no_plain_json_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidArguments, match=f"f: the object of arguments .*{message}"):
        bind({}, text)


@pytest.mark.parametrize(
    ("parameters", "arguments", "message"),
    [
        (of_x({"type": "integer"}), {"x": "a"}, 'x is "a"; it must be of type integer'),
        (of_x({"type": ["integer", "null"]}), {"x": "a"}, 'x is "a"; it must be of type integer or null'),
        (of_x({"enum": [1, 2]}), {"x": 3}, r"x is 3; it must be one of \[1, 2\]"),
        (of_x({"maximum": 2}), {"x": 3}, "x is 3; the schema wants maximum 2"),
        (of_x({"items": {"type": "string"}}), {"x": ["a", 1]}, r"x\[1\] is 1; it must be of type string"),
        (of_x({"required": ["a", "b"]}), {"x": {"b": 1}}, "x lacks a"),
        (of_x(False), {"x": 1}, "the object of arguments is 1; the schema allows nothing here"),
        ({"additionalProperties": False, "properties": {"a": {}}}, {"b": 1}, 'has "b", which is none of a'),
        ({"additionalProperties": {"type": "string"}}, {"b": 1}, "b is 1; it must be of type string"),
        (of_x({"uniqueItems": True}), {"x": [{"a": 1}, {"a": 1.0}]}, "x is .*; the schema wants uniqueItems true"),
        (of_x({"anyOf": [{"type": "null"}, {"type": "object", "required": ["q"]}]}), {"x": {}}, "x lacks q"),
        (of_x({"type": "string"}), {"x": ["a" * 999]}, r'x is \["a{75}\.\.\.; it must be of type string'),
        (of_x({"multipleOf": 0.1}), f'{{"x": {"9" * 400}}}', "cannot be checked: int too large to convert to float"),
    ],
)
def test_what_does_not_fit_is_reported_with_its_place_and_the_expected_type(
    parameters: dict[str, Any], arguments: object, message: str
) -> None:
    with pytest.raises(InvalidArguments, match=f"^f: .*{message}") as refused:
        bind(parameters, arguments)

    assert refused.value.tool == "f"


def test_what_fits_comes_through_as_it_is() -> None:
    arguments = {"x": [1, 1.0 + 1e-9, True, "1", None, {"a": [0]}], "é": "\u2028"}

    assert bind(of_x({"uniqueItems": True}), arguments) == arguments


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            of_x({"type": "text"}),
            r"f: the parameters are no JSON Schema that works here: \$.properties.x.type: 'text' is",
        ),
        (of_x({"pattern": "("}), r"\$.properties.x.pattern: '\(' is not a 'regex'"),
        (of_x({"pattern": "(" * 2000 + ")" * 2000}), "it is nested too deeply"),
        ({"required": "x"}, r"\$.required: 'x' is not of type 'array'"),
        (of_x({"$ref": "#/$defs/no"}), r'\$ref "#/\$defs/no" leads nowhere in it'),
        (of_x({"$ref": "http://127.0.0.1:1/schema.json"}), r"\$ref .* leads nowhere in it"),
        (of_x({"$dynamicRef": "#x"}), r"\$dynamicRef is in it: use \$ref"),
        (of_x({"$schema": "http://json-schema.org/draft-07/schema#"}), r"\$schema is in it: only the whole schema may"),
        ({"$schema": [1]}, r"\$schema is \[1\]; it must be the address of a draft"),
        ({"patternProperties": {"a": {}}, "unevaluatedProperties": False}, "use additionalProperties"),
    ],
)
def test_a_schema_that_is_none_is_refused_before_anything_is_called(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        Toolbox([Tool("f", parameters=parameters, function=dict)])


def test_a_schema_is_read_as_its_draft_has_it() -> None:
    pair = {"type": "array", "items": [{"type": "string"}]}
    schema = of_x(pair) | {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {"$ref": "#"}}}

    assert bind(schema, {"x": ["a", 1]}) == {"x": ["a", 1]}
    with pytest.raises(InvalidArguments, match=r"x\[0\] is 1; it must be of type string"):
        bind(schema, {"x": [1]})
    with pytest.raises(InvalidRequest):
        bind(of_x(pair), {})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("^(a+)+$", "a" * 50 + "!"),
        ("^(a|a)*$", "a" * 50 + "!"),
        ("^(a?){50}a{50}$", "a" * 49),
        ("^(([a-z])+.)+[A-Z]([a-z])+$", "a" * 60),
        ("(.*)*(.*)*(.*)*x", "a" * 5000),
        ("a*a*a*a*a*b", "a" * 5000),
        ("^(?=(a+)+b)", "a" * 50),
        ("^(?:(?:a*)*)*b", "a" * 500_000),
        ("(?=a*b)", "a" * 50_000),
    ],
)
def test_a_hostile_pattern_gets_its_answer(expression: str, text: str) -> None:
    started = time.monotonic()

    with pytest.raises(InvalidArguments, match=r"the schema wants pattern|takes too long to match"):
        bind(of_x({"pattern": expression}), {"x": text})
    with pytest.raises(InvalidArguments, match=r"which is none of|takes too long to match"):
        bind({"patternProperties": {expression: {}}, "additionalProperties": False}, {text: 1})

    assert time.monotonic() - started < PATIENCE_S


def test_a_pattern_that_looks_hostile_still_does_its_work() -> None:
    slug = of_x({"pattern": "^([a-z]+-)*[a-z]+$"})

    assert bind(slug, {"x": "very-" * 500 + "long"})
    with pytest.raises(InvalidArguments, match="pattern"):
        bind(slug, {"x": "very-" * 500})


def test_schemas_that_multiply_are_checked_in_time() -> None:
    steps = {f"s{i}": {"anyOf": [{"$ref": f"#/$defs/s{i + 1}"}] * 3} for i in range(60)}
    schema = of_x({"$ref": "#/$defs/s0"}) | {"$defs": steps | {"s60": {"type": "string"}}}
    repeated = [{"a": number} for number in range(9000)]
    started = time.monotonic()

    assert bind(schema, {"x": "a"}) == {"x": "a"}
    with pytest.raises(InvalidArguments):
        bind(schema, {"x": 1})
    assert bind(of_x({"uniqueItems": True}), {"x": repeated}) == {"x": repeated}
    assert time.monotonic() - started < PATIENCE_S


def test_a_schema_that_refers_to_itself_without_end_refuses_all() -> None:
    schema = of_x({"$ref": "#/$defs/a"}) | {"$defs": {"a": {"$ref": "#/$defs/a"}}}

    with pytest.raises(InvalidArguments, match="is nested too deeply for its schema"):
        bind(schema, {"x": 1})


def test_a_stack_with_little_room_makes_no_traceback() -> None:
    toolbox = Toolbox([Tool("f", parameters={"properties": {"x": {"$ref": "#"}}}, function=dict)])
    nested = ToolCall(index=0, id="", name="f", arguments_json='{"x": ' * 60 + "{}" + "}" * 60)
    frame, room = sys._getframe(), sys.getrecursionlimit()
    while frame := frame.f_back:  # type: ignore[assignment]
        room -= 1

    def fall(levels: int) -> BoundCall:
        return fall(levels - 1) if levels else toolbox.bind(nested)

    assert fall(0).arguments == nested.arguments
    with pytest.raises(InvalidArguments, match="nested too deeply"):
        fall(room - 150)


def test_checks_at_the_same_time_do_not_meet() -> None:
    validation = Validation(of_x({"$ref": "#/$defs/a"}) | {"$defs": {"a": {"type": "array", "items": {"$ref": "#"}}}})
    problems: list[object] = []

    def check(good: bool) -> None:
        for _ in range(50):
            try:
                validation.check({"x": [{"x": []}, {"x": [{}] if good else 5}]})
                problems.append(None if good else "accepted")
            except Misfit as misfit:
                problems.append(None if not good and str(misfit) == "x[1].x is 5; it must be of type array" else misfit)

    threads = [threading.Thread(target=check, args=[good]) for good in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert problems == [None] * 100


ATOMS = st.sampled_from(["a", "b", "-", ".", "[ab]", "[^a]", r"\w", r"\D", "^", "$", r"\b", "(?<=a)", "(?<!ab)", ""])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("({0[0]}|{0[1]})".format),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{0,1}?", "*?"])).map(
            "(?:{0[0]}){0[1]}".format
        ),
        inner.map("(?={})".format),
        inner.map("(?!{})".format),
    ),
    max_leaves=6,
)


@given(EXPRESSIONS, st.text("ab-\n", max_size=8))
def test_patterns_find_what_python_finds(expression: str, text: str) -> None:
    assert fits(of_x({"pattern": expression}), {"x": text}) == bool(re.search(expression, text))


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("(?i)ÄB", "äb"),
        ("(?m)^b$", "a\nb\nc"),
        ("(?s)a.b", "a\nb"),
        (r"^\d{4}-\d\d$", "2024-02"),
        (r"\bé\b", "é!"),
        ("^^a", "a"),
        (r"^(a|b)-\1$", "b-b"),
        (r"(?P<quote>['\"]).*(?P=quote)", "say 'a\"b'"),
    ],
)
def test_patterns_know_flags_unicode_and_what_a_group_matched(expression: str, text: str) -> None:
    schema = of_x({"pattern": expression})

    assert fits(schema, {"x": text})
    assert fits(schema, {"x": f"x{text}x"}) == bool(re.search(expression, f"x{text}x"))


def test_names_are_found_by_patterns_that_refer_to_a_group() -> None:
    schema = {"patternProperties": {r"^(a|b)\1$": {"type": "integer"}}, "additionalProperties": False}

    assert fits(schema, {"aa": 1, "bb": 2})
    assert not fits(schema, {"aa": "1"})
    assert not fits(schema, {"ab": 1})


@pytest.mark.slow
def test_many_slow_matches_take_no_longer_than_one() -> None:
    schema, slow = of_x({"items": {"pattern": "(?=a*b)"}}), "a" * 6000
    started = time.monotonic()

    with pytest.raises(InvalidArguments, match=r"x\[0\] is .*; the schema wants pattern"):
        bind(schema, {"x": [slow]})
    with pytest.raises(InvalidArguments, match=r"cannot be checked: the pattern '\(\?=a\*b\)' takes too long to match"):
        bind(of_x({"items": {"not": {"pattern": "(?=a*b)"}}}), {"x": [slow] * 160})

    assert time.monotonic() - started < PATIENCE_S


# Without 0 and 1, which jsonschema takes for false and true where it looks for repeated lists.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(2, 5) | st.sampled_from([2.0, 3.0, 2.5]) | st.sampled_from(["", "a", "aa"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abx"), inner, max_size=3),
    max_leaves=8,
)
SCHEMAS = st.recursive(
    st.sampled_from(
        [
            {}, {"type": "integer"}, {"type": ["string", "null"]}, {"enum": [2, "a", None]}, {"pattern": "^a+$"},
            {"$ref": "#/$defs/again"}, {"uniqueItems": True}, {"minimum": 3}, {"required": ["a"]}, {"const": True},
        ]
    ),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: {"properties": {"a": two[0]}, "additionalProperties": two[1]}),
        st.tuples(inner, inner).map(lambda two: {"patternProperties": {"a|b": two[0]}, "additionalProperties": two[1]}),
        st.fixed_dictionaries({"items": inner, "type": st.just("array")}),
        st.lists(inner, min_size=1, max_size=2).map(lambda schemas: {"anyOf": schemas}),
        st.lists(inner, min_size=1, max_size=2).map(lambda schemas: {"oneOf": schemas}),
        inner.map(lambda schema: {"not": schema}),
    ),
    max_leaves=6,
)  # fmt: skip


@given(SCHEMAS, SCHEMAS, st.dictionaries(st.sampled_from("abx"), JSON, max_size=3))
def test_what_fits_is_what_json_schema_says_fits(again: Any, inner: Any, arguments: dict[str, Any]) -> None:
    definition = {"items": again, "properties": {"a": again, "x": {"$ref": "#/$defs/again"}}}
    schema = {"additionalProperties": inner, "$defs": {"again": definition}}

    assert fits(schema, arguments) == Draft202012Validator(schema).is_valid(arguments)
