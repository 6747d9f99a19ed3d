"""Classes with members, each defined once under a name of its own, so that they may hold themselves.

pydantic is never imported: a class with `model_json_schema` and `model_validate` is taken for one of its models.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from nemotron_client.functions.json_values import shortened
from nemotron_client.functions.shapes import Known, Misfit, NoSchema, Shape, opaque


class Definitions:
    """What the schema of one function has in its `$defs`."""

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = {}
        self._references: dict[type, Shape] = {}

    def once(self, kind: type, build: Callable[[type], Shape]) -> Shape:
        """What *build* makes of *kind*, as a reference to it; it is not built again, nor while it is being built."""
        if kind not in self._references:
            name = self._free(kind.__name__)
            built: list[Shape] = []

            def read(value: Any, known: Known) -> Any:
                place = (name, id(value))
                if place not in known:
                    try:
                        known[place] = built[0].read(value, known)
                    except Misfit as misfit:
                        known[place] = misfit
                if isinstance(result := known[place], Misfit):
                    raise result
                return result

            self._references[kind] = Shape({"$ref": f"#/$defs/{name}"}, read)
            self.schemas[name] = {}
            built.append(build(kind))
            self.schemas[name] = built[0].schema
        return self._references[kind]

    def model(self, model: Any) -> Shape:
        """A pydantic model, which brings definitions of its own."""
        if model not in self._references:
            try:
                schema, nested = self._schema_of(model)
            except Exception as error:
                # pydantic's own error class is not known here.
                raise NoSchema(f"{model.__name__} has no schema: {shortened(str(error), 300)}") from error
            self.schemas |= nested
            # A model that holds itself is a reference into its own definitions already.
            if schema.keys() != {"$ref"}:
                same = self.schemas.get(model.__name__) == schema
                name = model.__name__ if same else self._free(model.__name__)
                self.schemas[name] = schema
                schema = {"$ref": f"#/$defs/{name}"}
            self._references[model] = opaque(model.model_validate, schema)
        return self._references[model]

    def _schema_of(self, model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The schema and its definitions, renamed where one of them is not the class that has its name here."""
        schema = dict(model.model_json_schema())
        nested = schema.pop("$defs", {})
        if all(self.schemas.get(name, body) == body for name, body in nested.items()):
            return schema, nested
        prefix = f"{self._free(model.__name__)}."
        schema = dict(model.model_json_schema(ref_template=f"#/$defs/{prefix}{{model}}"))
        return schema, {f"{prefix}{name}": body for name, body in schema.pop("$defs", {}).items()}

    def _free(self, name: str) -> str:
        """*name*, or one like it where it is used already."""
        name = re.sub(r"[^A-Za-z0-9_-]", "_", name)
        names = (name, *(f"{name}_{number}" for number in range(2, len(self.schemas) + 3)))
        used = {name.partition(".")[0] for name in self.schemas}
        return next(name for name in names if name not in used)
