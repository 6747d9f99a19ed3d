"""A guide behind thinking, as a structural tag of xgrammar, which TensorRT-LLM and TensorRT Edge-LLM compile.

The form is that of xgrammar 0.1.25 and later (`python/xgrammar/structural_tag.py` of mlc-ai/xgrammar), to which
NVIDIA/TensorRT-LLM changed before 1.2 (pull request 7893); its own server lets a model think first in the same way
(10890). xgrammar reads a control token as its spelling, so a closing tag is found whether it is one token or several.
Compiled with 0.1.25 and 0.1.32; not run on hardware.
"""

from __future__ import annotations

import json
from typing import Any

from nemotron_triton.chat.reasoning import CLOSER, OPENER
from nemotron_triton.engine.interface import Guide


def structural_tag(guide: Guide) -> str:
    """*guide*, a schema or an expression, behind the think block that its `thinking` describes."""
    thought = {
        "type": "tag",
        "begin": f"{OPENER}\n" if guide.thinking == "model opens" else "",
        "content": {"type": "any_text"},
        "end": CLOSER,
    }
    guided: dict[str, Any] = (
        {"type": "regex", "pattern": guide.text}
        if guide.kind == "regex"
        else {"type": "json_schema", "json_schema": json.loads(guide.text)}
    )
    # As models write it; a model could repeat optional whitespace for ever.
    blank = {"type": "regex", "pattern": r"\n{0,2}"}
    return json.dumps({"type": "structural_tag", "format": {"type": "sequence", "elements": [thought, blank, guided]}})
