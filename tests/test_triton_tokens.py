"""Bytes to text and back: nothing lost between tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from nemotron_triton.chat.render import Prompt
from nemotron_triton.chat.tokens import Detokenizer, TokenCodec
from nemotron_triton.errors import TokenizerError

DEMO = Path(__file__).parents[1] / "build/demo/checkpoint/tokenizer.json"
CODEC = TokenCodec(DEMO)
TOKENIZER = Tokenizer.from_file(str(DEMO))
TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30)
IDS = st.lists(st.integers(0, TOKENIZER.get_vocab_size() - 1), max_size=30)


@given(TEXT)
def test_any_text_survives_encoding_and_decoding(text: str) -> None:
    assume("\ufdd0" not in text)
    ids = CODEC.encode(Prompt(text, "\ufdd0", ("<|eot_id|>",)))
    detokenizer = Detokenizer(CODEC)

    decoded = "".join([detokenizer.feed([token]) for token in ids] + [detokenizer.finish()])

    assert decoded == text


@given(IDS, st.data())
def test_any_ids_decode_as_the_tokenizer_itself_decodes_them(ids: list[int], data: st.DataObject) -> None:
    detokenizer = Detokenizer(CODEC)
    cut = data.draw(st.integers(0, len(ids)))

    pieces = detokenizer.feed(ids[:cut]), detokenizer.feed(ids[cut:]), detokenizer.finish()

    assert "".join(pieces) == TOKENIZER.decode(ids, skip_special_tokens=False)


@given(TEXT, st.data())
def test_another_spelling_of_a_text_is_spelled_again(text: str, data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 5), max_size=20))
    spelled, rest = list[int](), text
    for size in [*sizes, len(text)]:
        spelled += CODEC.encode_text(rest[:size])
        rest = rest[size:]
    end = CODEC.control_id("<|eot_id|>")
    assert end is not None

    assert CODEC.respelled([end, *spelled, end]) == [end, *CODEC.encode_text(text), end]


def test_a_character_comes_with_its_last_byte() -> None:
    ids = [CODEC.id_of(bytes([byte])) for byte in "😀".encode()]
    detokenizer = Detokenizer(CODEC)

    pieces = [detokenizer.feed([token]) for token in ids if token is not None]

    assert pieces == ["", "", "", "😀"]


@pytest.mark.parametrize("content", [None, "{", '{"version": "1.0", "model": {"type": "WordLevel", "vocab": {}}}'])
def test_a_tokenizer_that_is_not_byte_level_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content:
        path.write_text(content)

    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        TokenCodec(path)


def test_a_tokenizer_with_another_decoder_is_refused(tmp_path: Path) -> None:
    stored = json.loads(DEMO.read_text()) | {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(stored))

    with pytest.raises(TokenizerError, match="not byte-level BPE"):
        TokenCodec(tmp_path / "tokenizer.json")
