"""YAML without tags, in which no key is given twice: YAML's own loader would keep the last."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.constructor import SafeConstructor


class _Unique(SafeConstructor):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise yaml.YAMLError(f"{repeated[0]} is given twice")
        return super().construct_mapping(node, deep)


_LOADER: Any = type("Loader", (_Unique, yaml.SafeLoader), {})
# libyaml's is eight times as fast, but deep nesting crashes the process.
_FAST_LOADER: Any = type("Loader", (_Unique, getattr(yaml, "CSafeLoader", yaml.SafeLoader)), {})


def load_yaml(text: str, *, trusted: bool = False) -> Any:
    """The document in *text*, fast if it is *trusted*; `yaml.YAMLError` for what is none, or gives a key twice."""
    return yaml.load(text, _FAST_LOADER if trusted else _LOADER)  # noqa: S506 - safe loaders
