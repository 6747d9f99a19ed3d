"""Schemas and tools as other APIs write them, in the shape that this one has. For both ends of the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The keys of OpenAI's wrapper of a schema; none of them says anything in a schema.
_WRAPPER = {"name", "schema", "strict", "description"}
# Where Anthropic's API and MCP have a tool's parameters.
_PARAMETERS = ("input_schema", "inputSchema")


def bare_schema(guide: Mapping[str, Any]) -> Mapping[str, Any]:
    """The JSON Schema in *guide*, which may be OpenAI's `response_format`, or the `json_schema` of one."""
    if guide.get("type") == "json_schema" and isinstance(guide.get("json_schema"), Mapping):
        guide = guide["json_schema"]
    schema = guide.get("schema")
    return schema if isinstance(schema, Mapping) and guide.keys() <= _WRAPPER else guide


def openai_tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """*tool* in OpenAI's shape where it is of Anthropic's, or of MCP, and unchanged where it is not."""
    key = next((key for key in _PARAMETERS if key in tool), None)
    if key is None or "parameters" in tool or "function" in tool or tool.get("type", "custom") != "custom":
        return tool
    about = {name: tool[name] for name in ("name", "description") if tool.get(name) is not None}
    return {"type": "function", "function": {**about, "parameters": tool[key]}}
