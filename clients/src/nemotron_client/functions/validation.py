"""Arguments against a JSON Schema, with jsonschema, in time that grows with the two and does not explode.

For that, what a reference leads to is looked at once for each value, patterns are matched by `regex` within a time, and
repeated items are found by their JSON. References lead nowhere but into the schema itself. Importing this module
imports jsonschema.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker, SchemaError, ValidationError
from jsonschema.exceptions import best_match
from jsonschema.validators import extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, specification_with

from nemotron_client.functions.json_values import shortened, shown
from nemotron_client.functions.patterns import BadPattern, MatchingTime, TooMuchWork, pattern
from nemotron_client.functions.shapes import Misfit

# Of all patterns of one check.
MATCHING_S = 2.0
_MAX_ERRORS = 20
_REFUSED = {
    "$schema": "only the whole schema may say which draft it is of",
    "$dynamicRef": "use $ref",
    "$recursiveRef": "use $ref",
}


class BadSchema(ValueError):
    """A schema that is none, or that could not be checked in bounded time."""


class Validation:
    """One schema, made ready to check arguments. `format` is not looked at."""

    @staticmethod
    @functools.lru_cache(maxsize=256)
    def of(text: str) -> Validation:
        """Of a schema as JSON, once: to check a schema takes longer than to check a hundred calls."""
        return Validation(json.loads(text))

    def __init__(self, schema: dict[str, Any]) -> None:
        """`BadSchema` says what is wrong with *schema*; without a `$schema` it is of draft 2020-12."""
        if not isinstance(schema.get("$schema", ""), str):
            raise BadSchema(f"$schema is {shown(schema['$schema'])}; it must be the address of a draft")
        try:
            draft = validator_for(schema, default=Draft202012Validator)
            draft.check_schema(schema)
            rules = {keyword: value for keyword, value in schema.items() if keyword != "$schema"}
            _check_parts(rules, draft)
        except SchemaError as error:
            raise BadSchema(f"{error.json_path}: {shortened(error.message, 200)}") from error
        except RecursionError as error:
            raise BadSchema("it is nested too deeply") from error
        self._validator = _bounded(draft)(rules, registry=Registry())

    def check(self, arguments: dict[str, Any]) -> None:
        """`Misfit` says where *arguments* do not fit."""
        validator = self._validator.evolve(format_checker=_Check())
        try:
            error = best_match(itertools.islice(validator.iter_errors(arguments), _MAX_ERRORS))
        except RecursionError as failure:
            raise Misfit("is nested too deeply for its schema") from failure
        except (TooMuchWork, BadPattern, ArithmeticError, Unresolvable) as failure:
            raise Misfit(f"cannot be checked: {shortened(str(failure), 200)}") from failure
        if error:
            raise _misfit(error)


class _Check(FormatChecker):
    """What one check has found out, and the time that is left to it. It knows no formats.

    A format checker, because that is what jsonschema hands on to each part of a schema.
    """

    def __init__(self) -> None:
        super().__init__(formats=())
        self.references: dict[tuple[int, int], ValidationError | None] = {}
        self.found = MatchingTime(MATCHING_S).found


def _check_parts(rules: dict[str, Any], draft: Any) -> None:
    specification = specification_with(draft.ID_OF(draft.META_SCHEMA) or "", default=DRAFT202012)
    resource = specification.create_resource(rules)
    keywords: set[str] = set()
    for part, resolver in _parts(resource, Registry().resolver_with_root(resource)):
        keywords |= part.keys()
        for keyword in part.keys() & _REFUSED.keys():
            raise BadSchema(f"{keyword} is in it: {_REFUSED[keyword]}")
        try:
            if "$ref" in part:
                resolver.lookup(part["$ref"])
            for expression in (part.get("pattern", ""), *part.get("patternProperties", ())):
                pattern(expression)
        except Unresolvable as error:
            raise BadSchema(f"$ref {shown(part['$ref'])} leads nowhere in it") from error
        except BadPattern as error:
            raise BadSchema(f"the pattern {shown(expression)}: {error}") from error
    if {"patternProperties", "unevaluatedProperties"} <= keywords:
        raise BadSchema("patternProperties and unevaluatedProperties are in it; use additionalProperties")


def _parts(resource: Any, resolver: Any) -> Iterator[tuple[Mapping[str, Any], Any]]:
    """All schemas in the schema, with what resolves their references."""
    if isinstance(resource.contents, Mapping):
        yield resource.contents, resolver
    for each in resource.subresources():
        yield from _parts(each, resolver.in_subresource(each))


@functools.lru_cache(maxsize=8)
def _bounded(draft: Any) -> Any:
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
    if isinstance(instance, str) and not validator.format_checker.found(expression, instance):
        yield ValidationError("it does not match")


def _pattern_properties(validator: Any, parts: dict[str, Any], instance: Any, _: Any) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for expression, schema in parts.items():
            for name in instance:
                if validator.format_checker.found(expression, name):
                    yield from validator.descend(instance[name], schema, path=name, schema_path=expression)


def _additional_properties(
    validator: Any, others: Any, instance: Any, schema: dict[str, Any]
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    known, expressions = schema.get("properties", {}), schema.get("patternProperties", {})
    for name in instance:
        if name in known or any(validator.format_checker.found(expression, name) for expression in expressions):
            continue
        if others is False:
            yield ValidationError(f"has {shown(name)}, which is none of {', '.join(known) or 'its properties'}")
        else:
            yield from validator.descend(instance[name], others, path=name)


def _unique_items(_: Any, wanted: bool, instance: Any, __: Any) -> Iterator[ValidationError]:
    if not wanted or not isinstance(instance, list):
        return
    if len({json.dumps(_canonical(each), sort_keys=True) for each in instance}) < len(instance):
        yield ValidationError("it holds a value twice")


def _canonical(value: Any) -> Any:
    """*value* with equal numbers written alike."""
    if isinstance(value, dict):
        return {name: _canonical(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_canonical(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _misfit(error: ValidationError) -> Misfit:
    wanted: Any = error.validator_value
    value: Any = error.instance
    if error.validator == "required" and isinstance(wanted, list):
        problem = f"lacks {', '.join(name for name in wanted if name not in value)}"
    elif error.validator == "additionalProperties":
        problem = error.message
    elif error.validator == "type":
        problem = (
            f"is {shown(value)}; it must be of type {' or '.join([wanted] if isinstance(wanted, str) else wanted)}"
        )
    elif error.validator == "enum":
        problem = f"is {shown(value)}; it must be one of {shown(wanted)}"
    elif error.validator:
        problem = f"is {shown(value)}; the schema wants {error.validator} {shown(wanted)}"
    else:
        problem = f"is {shown(value)}; the schema allows nothing here"
    return Misfit(problem, tuple(error.absolute_path))
