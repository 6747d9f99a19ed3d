"""The keywords of JSON Schema that could cost without bound, bounded.

What a reference leads to is looked at once for each value, patterns are matched by `regex` within a time, because some
take years on thirty characters of a model's choosing, and repeated items are found by their JSON.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator
from typing import Any

import regex
from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.validators import extend

from nemotron_client.functions.json_values import shown

# Of all patterns of one check.
MATCHING_S = 2.0


class Check(FormatChecker):
    """The results so far of one check of arguments, and the time that is left to it. It knows no formats.

    A format checker, because that is what jsonschema hands on to each part of a schema.
    """

    def __init__(self) -> None:
        super().__init__(formats=())
        self.references: dict[tuple[int, int], ValidationError | None] = {}
        self._left_s = MATCHING_S

    def matches(self, expression: str, text: str) -> bool:
        """Whether *expression* matches anywhere in *text*; `TimeoutError` when the time is used up."""
        begin_s = time.monotonic()
        try:
            return pattern(expression).search(text, timeout=max(self._left_s, 0), concurrent=True) is not None
        except TimeoutError as error:
            raise TimeoutError(f"the pattern {expression!r:.80} takes too long to match") from error
        finally:
            self._left_s -= time.monotonic() - begin_s


@functools.lru_cache(maxsize=256)
def pattern(expression: str) -> Any:
    """*expression*, compiled; `ValueError` where it cannot be."""
    try:
        return regex.compile(expression)
    except (regex.error, RecursionError, OverflowError) as error:
        raise ValueError(f"it is no regular expression that can be read: {error}") from error


@functools.lru_cache(maxsize=8)
def bounded(draft: Any) -> Any:
    """The validator of *draft* with these keywords; it is to be evolved with a `Check` each time."""
    keywords = {
        "$ref": _reference,
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "uniqueItems": _unique_items,
    }
    new: Any = extend  # it has no types
    return new(draft, {name: check for name, check in keywords.items() if name in draft.VALIDATORS})


def _reference(validator: Any, reference: str, instance: Any, schema: dict[str, Any]) -> Iterator[ValidationError]:
    references = validator.format_checker.references
    place = (id(schema), id(instance))
    if place not in references:
        references[place] = next(Draft202012Validator.VALIDATORS["$ref"](validator, reference, instance, schema), None)
    if error := references[place]:
        # Whoever passes an error on writes its own place into it.
        yield ValidationError.create_from(error)


def _pattern(validator: Any, expression: str, instance: Any, _: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not validator.format_checker.matches(expression, instance):
        yield ValidationError("it does not match")


def _pattern_properties(validator: Any, parts: dict[str, Any], instance: Any, _: Any) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for expression, schema in parts.items():
            for name in instance:
                if validator.format_checker.matches(expression, name):
                    yield from validator.descend(instance[name], schema, path=name, schema_path=expression)


def _additional_properties(
    validator: Any, others: Any, instance: Any, schema: dict[str, Any]
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    known, expressions = schema.get("properties", {}), schema.get("patternProperties", {})
    for name in instance:
        if name in known or any(validator.format_checker.matches(expression, name) for expression in expressions):
            continue
        if others is False:
            yield ValidationError(f"has {shown(name)}, which is none of {', '.join(known) or 'its properties'}")
        else:
            yield from validator.descend(instance[name], others, path=name)


def _unique_items(_: Any, unique: bool, instance: Any, __: Any) -> Iterator[ValidationError]:
    if unique and isinstance(instance, list):
        texts = {json.dumps(_canonical(item), sort_keys=True) for item in instance}
        if len(texts) < len(instance):
            yield ValidationError("it holds a value twice")


def _canonical(value: Any) -> Any:
    """*value* with equal numbers written alike."""
    if isinstance(value, dict):
        return {name: _canonical(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
