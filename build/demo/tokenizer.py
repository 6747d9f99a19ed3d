"""The demo model's tokenizer: byte-level BPE learned from the synthetic text, written in Hugging Face files.

Any UTF-8 text survives a round trip. Digits stand alone, and a space joins only the commonest small words, so that a
name or a number is the same tokens in a question, in JSON and in an answer: copying is then a matter of identity.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SIZE = 1536
BEGIN, END_OF_TURN, PAD = "<|begin_of_text|>", "<|eot_id|>", "<|finetune_right_pad_id|>"
SPECIAL = (
    BEGIN, "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", END_OF_TURN,
    "<|python_tag|>", PAD,
)  # fmt: skip
# No fragment ends in the quote that another begins with unless a string is empty: any order of matching agrees.
FIXED = (
    "<think>", "</think>", "<TOOLCALL>", "</TOOLCALL>", "<AVAILABLE_TOOLS>", "</AVAILABLE_TOOLS>", "<TOOL_RESPONSE>",
    "</TOOL_RESPONSE>", "detailed thinking on", "detailed thinking off", '{"name": "', '", "description": "',
    '", "parameters": {"type": "object", "properties": {"', '": {"type": "string', '": {"type": "number',
    '": {"type": "integer', '"}, "', '"}}, "required": ["', '"]}}, {"name": "', '"}}}, {"name": "',
    '", "arguments": {"', '"}}, {"name": "', '}}, {"name": "', '", "', '": "', '": ', ', "', '"}}',
    '"]}}', '"}}}', '"}', '}, {"', '{"',
)  # fmt: skip
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_JOINED = (
    "the|is|a|of|in|for|to|what|and|I|my|on|it|you|can|call|with|question|about|has|have|that|are|do|not|no|none|tools|"
    "tool|result|there|know|me|how|much|be|an|at|capital|answer|want|will|would|say|price|weather|tip"
)
_TRAINING_SPLIT = rf" (?:{_JOINED})(?!\p{{L}})|_?\p{{L}}+|\p{{N}}| |[^\s\p{{L}}\p{{N}}]+|\s+"
_CUT = re.compile("|".join(re.escape(text) for text in sorted(SPECIAL + FIXED, key=len, reverse=True)))


def train(texts: Iterable[str]) -> Tokenizer:
    """Learn a tokenizer of exactly SIZE tokens."""
    tokenizer = Tokenizer(models.BPE())
    # Merges are learned between narrower borders than the ones used later, so none joins a space to a name.
    tokenizer.pre_tokenizer = _byte_level(_TRAINING_SPLIT)
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - len(SPECIAL) - len(FIXED),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_pieces(texts), trainer)
    tokenizer.pre_tokenizer = _byte_level(_SPLIT)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in FIXED])
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    if tokenizer.get_vocab_size() != SIZE:
        raise ValueError(f"the tokenizer has {tokenizer.get_vocab_size()} tokens instead of {SIZE}: give it more text")
    return tokenizer


def write(tokenizer: Tokenizer, directory: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`."""
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END_OF_TURN,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def token_id(tokenizer: Tokenizer, text: str) -> int:
    """The id of one token; `KeyError` when there is none."""
    token = tokenizer.token_to_id(text)
    if token is None:
        raise KeyError(text)
    return int(token)


def _byte_level(split: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _pieces(texts: Iterable[str]) -> Iterator[str]:
    """The *texts* without the parts that become fixed or special tokens."""
    for text in texts:
        yield from filter(None, _CUT.split(text))
