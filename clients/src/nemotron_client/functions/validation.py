"""Arguments against a JSON Schema, with jsonschema, in time that grows with the two and does not explode.

References lead nowhere but into the schema itself. Importing this module imports jsonschema.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, SchemaError, ValidationError
from jsonschema.exceptions import best_match
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, specification_with

from nemotron_client.functions.json_values import shortened, shown
from nemotron_client.functions.keywords import Check, bounded, pattern
from nemotron_client.functions.shapes import Misfit

_MAX_ERRORS = 20
_REFUSED = {
    "$schema": "only the whole schema may say which draft it is of",
    "$dynamicRef": "use $ref",
    "$recursiveRef": "use $ref",
}


class BadSchema(ValueError):
    """A schema that is none, or that could not be checked in bounded time."""


class Validation:
    """One schema, made ready to check arguments. `format` is not looked at.

    Without a `$schema` it is of draft 2020-12. `BadSchema` says what is wrong with it.
    """

    @staticmethod
    @functools.lru_cache(maxsize=256)
    def of(text: str) -> Validation:
        """Of a schema as JSON, once: to check a schema takes longer than to check a hundred calls."""
        return Validation(json.loads(text))

    def __init__(self, schema: dict[str, Any]) -> None:
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
        self._validator = bounded(draft)(rules, registry=Registry())

    def check(self, arguments: dict[str, Any]) -> None:
        """`Misfit` says where *arguments* do not fit."""
        validator = self._validator.evolve(format_checker=Check())
        try:
            error = best_match(itertools.islice(validator.iter_errors(arguments), _MAX_ERRORS))
        except RecursionError as failure:
            raise Misfit("is nested too deeply for its schema") from failure
        except (TimeoutError, ValueError, ArithmeticError, Unresolvable) as failure:
            raise Misfit(f"cannot be checked: {shortened(str(failure), 200)}") from failure
        if error:
            raise Misfit(_problem(error), tuple(error.absolute_path))


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
        except ValueError as error:
            raise BadSchema(f"the pattern {shown(expression)}: {error}") from error
    if {"patternProperties", "unevaluatedProperties"} <= keywords:
        raise BadSchema("patternProperties and unevaluatedProperties are in it; use additionalProperties")


def _parts(resource: Any, resolver: Any) -> Iterator[tuple[Mapping[str, Any], Any]]:
    """All schemas in the schema, with what resolves their references."""
    if isinstance(resource.contents, Mapping):
        yield resource.contents, resolver
    for part in resource.subresources():
        yield from _parts(part, resolver.in_subresource(part))


def _problem(error: ValidationError) -> str:
    """*error* as a `Misfit` says it: behind the place that it is about."""
    rule: Any = error.validator_value
    value = shown(error.instance)
    if error.validator == "required" and isinstance(rule, list):
        instance: Any = error.instance
        return f"lacks {', '.join(name for name in rule if name not in instance)}"
    if error.validator == "additionalProperties":
        return error.message
    if error.validator == "type":
        return f"is {value}; it must be of type {' or '.join([rule] if isinstance(rule, str) else rule)}"
    if error.validator == "enum":
        return f"is {value}; it must be one of {shown(rule)}"
    if error.validator:
        return f"is {value}; the schema wants {error.validator} {shown(rule)}"
    return f"is {value}; the schema allows nothing here"
