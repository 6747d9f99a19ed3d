"""YAML without tags, in which no key is given twice: YAML's own loader would keep the last."""

from __future__ import annotations

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        if twice := [name for name in names if names.count(name) > 1]:
            raise yaml.YAMLError(f"{twice[0]} is given twice")
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> Any:
    """The document in *text*; `yaml.YAMLError` for what is none, or gives a key twice."""
    return yaml.load(text, _Loader)  # noqa: S506 - a safe loader
