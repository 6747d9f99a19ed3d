"""Guides for XGrammar, which is in TensorRT-LLM and in TensorRT Edge-LLM, where no thinking comes before them."""

from __future__ import annotations

from nemotron_triton.chat.gbnf import written_out
from nemotron_triton.engine.interface import Guide

# What an engine with XGrammar cannot follow.
BEYOND_ASCII = {
    "guide.characters": "XGrammar misreads classes of characters beyond ASCII, and those of the patterns in the "
    "parameters are too large to be written out, as those of [^é] are; name fewer characters, or leave a pattern out"
}


def guide_text(guide: Guide) -> str:
    """The text of *guide*; of a grammar, which is one of ours, as XGrammar reads it right."""
    return (written_out(guide.text) if guide.kind == "grammar" else None) or guide.text
