"""Matches texts with a guide library, in its own environment: a JSON line {"grammar", "texts"} in, one of verdicts out.

The first argument is the library; the second, of xgrammar, a tokenizer.json. xgrammar imports torch and transformers
for what is not used here; they are replaced by nothing.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

_ESCAPE = re.compile(r"\\u([0-9a-f]{4})|\\U([0-9a-f]{8})|\\.")
Match = Callable[[str, str], bool]


def with_xgrammar(tokenizer: str) -> Callable[[str], Callable[[str], bool]]:
    """Compiles a grammar for all tokens of *tokenizer*, as an engine does, and matches with it."""
    for name in ("torch", "torch.utils", "torch.utils.cpp_extension", "transformers"):
        sys.modules[name] = MagicMock()
    import xgrammar

    with open(tokenizer, encoding="utf-8") as file:  # noqa: PTH123 - no package of ours here
        read = json.load(file)
    tokens = read["model"]["vocab"] | {token["content"]: token["id"] for token in read["added_tokens"]}
    vocabulary = [""] * (max(tokens.values()) + 1)
    for text, token_id in tokens.items():
        vocabulary[token_id] = text
    kind = xgrammar.VocabType.BYTE_LEVEL
    compiler = xgrammar.GrammarCompiler(xgrammar.TokenizerInfo(vocabulary, vocab_type=kind, stop_token_ids=[0]))

    def compiled(grammar: str) -> Callable[[str], bool]:
        matcher = xgrammar.GrammarMatcher(compiler.compile_grammar(grammar), terminate_without_stop_token=True)

        def accepts(text: str) -> bool:
            matcher.reset()
            return bool(matcher.accept_string(text)) and bool(matcher.is_terminated())

        return accepts

    return compiled


def _as_converted(escape: re.Match[str]) -> str:
    """*escape* as llguidance's converter of GBNF takes it: of ASCII with two digits, none of other characters."""
    if not (digits := escape[1] or escape[2]):
        return escape[0]
    code = int(digits, 16)
    return chr(code) if code > 0x7F else f"\\x{code:02x}"


def with_llguidance() -> Callable[[str], Callable[[str], bool]]:
    """Matches a grammar byte by byte."""
    from llguidance import LLMatcher, LLTokenizer
    from llguidance.gbnf_to_lark import any_to_lark

    tokenizer: Any = LLTokenizer("byte")

    def compiled(grammar: str) -> Callable[[str], bool]:
        lark = LLMatcher.grammar_from_lark(any_to_lark(_ESCAPE.sub(_as_converted, grammar)))
        if problem := LLMatcher.validate_grammar(lark, tokenizer):
            raise SystemExit(problem)

        def accepts(text: str) -> bool:
            matcher = LLMatcher(tokenizer, lark, log_level=0)
            return bool(matcher.consume_tokens(tokenizer.tokenize_bytes(text.encode()))) and bool(
                matcher.is_accepting()
            )

        return accepts

    return compiled


def main() -> None:
    """Answer each line of stdin."""
    library, *arguments = sys.argv[1:]
    compile_grammar = with_xgrammar(*arguments) if library == "xgrammar" else with_llguidance()
    for line in sys.stdin:
        request = json.loads(line)
        accepts = compile_grammar(request["grammar"])
        print(json.dumps([accepts(text) for text in request["texts"]]), flush=True)  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
