"""Text to token ids and back, for byte-level BPE tokenizers (both Nemotron Nano families have one).

Only control tokens that the template wrote are encoded as such. Decoding works on bytes: a character split over several
tokens comes out with its last byte, and the pieces always join to the whole text.
"""

from __future__ import annotations

import array
import codecs
import functools
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from nemotron_triton.chat.content_cache import ContentCache
from nemotron_triton.chat.render import Prompt
from nemotron_triton.errors import TokenizerError

# Of text whose ids are kept; with them it takes up to four times as many bytes, and up to eight in odd scripts.
_CACHED_CHARACTERS = 4 << 20


class TokenCodec:
    """The tokenizer of one checkpoint, from its `tokenizer.json`; `TokenizerError` if that is not byte-level BPE."""

    def __init__(self, path: Path) -> None:
        try:
            content = path.read_bytes()
            self._tokenizer: Tokenizer = Tokenizer.from_buffer(content)
            stored: dict[str, Any] = json.loads(content)
        except Exception as error:  # tokenizers raises bare Exception for every missing or malformed file
            raise TokenizerError(f"{path} is not a tokenizer: {error}") from error
        # Only the template writes control tokens; in text from callers their spelling is text.
        self._tokenizer.encode_special_tokens = True
        self._bytes = _token_bytes(stored, path)
        self._control = {token["content"]: token["id"] for token in stored.get("added_tokens", []) if token["special"]}
        self._kept: ContentCache[array.array[int]] = ContentCache(_CACHED_CHARACTERS)
        self._ids = {text: token_id for token_id, text in enumerate(self._bytes)}

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return len(self._bytes)

    def encode(self, prompt: Prompt) -> list[int]:
        """The ids of a rendered prompt; no token is added.

        The text between two control tokens is a text by itself for a tokenizer, so its ids can be kept.
        """
        ids: list[int] = []
        for text, is_control in prompt.pieces():
            if is_control and text in self._control:
                ids.append(self._control[text])
            else:
                ids.extend(self._kept.get((text,), functools.partial(self._packed_ids, text)))
        return ids

    def encode_text(self, text: str) -> list[int]:
        """The ids of text in which nothing is a control token."""
        # A batch of one: unlike `encode` it releases the GIL, so a long prompt does not hold up other streams.
        ids: list[int] = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return ids

    def respelled(self, ids: Iterable[int]) -> list[int]:
        """The ids that the tokenizer has for the text of *ids*; a model may spell it otherwise."""
        control = set(self._control.values())
        spelled: list[int] = []
        for is_control, run in itertools.groupby(ids, control.__contains__):
            some = list(run)
            text = b"".join(map(self.bytes_of, some)).decode(errors="replace")
            spelled += some if is_control else self.encode_text(text)
        return spelled

    def _packed_ids(self, text: str) -> array.array[int]:
        return array.array("i", self.encode_text(text))

    def control_id(self, text: str) -> int | None:
        """The id of the control token *text*, or None."""
        return self._control.get(text)

    def bytes_of(self, token_id: int) -> bytes:
        """The bytes of a token; none for ids outside the vocabulary."""
        return self._bytes[token_id] if 0 <= token_id < len(self._bytes) else b""

    def id_of(self, text: bytes) -> int | None:
        """A token with exactly these bytes, or None."""
        return self._ids.get(text)


class Detokenizer:
    """Token ids of one answer to text, incrementally; bytes that are not UTF-8 become U+FFFD."""

    def __init__(self, codec: TokenCodec) -> None:
        self._codec = codec
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, ids: Iterable[int]) -> str:
        """The text that *ids* complete."""
        return self._utf8.decode(b"".join(map(self._codec.bytes_of, ids)))

    @property
    def inside_character(self) -> bool:
        """Whether more bytes of a character are to come."""
        return bool(self._utf8.getstate()[0])

    def finish(self) -> str:
        """U+FFFD for a character that was cut off."""
        return self._utf8.decode(b"", final=True)


def _token_bytes(stored: dict[str, Any], path: Path) -> list[bytes]:
    model = stored.get("model", {})
    if model.get("type") != "BPE" or '"ByteLevel"' not in json.dumps(stored.get("decoder")):
        raise TokenizerError(
            f"{path} is not byte-level BPE, which the Nemotron Nano models have; use their own tokenizer.json"
        )
    # The byte alphabet of GPT-2: printable Latin-1 stands for itself, other bytes for U+0100 and up, in order.
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = map(chr, itertools.count(0x100))
    byte_of = {chr(byte) if byte in printable else next(others): byte for byte in range(256)}
    texts: dict[int, bytes] = {}
    for text, token_id in model["vocab"].items():
        try:
            texts[token_id] = bytes(map(byte_of.__getitem__, text))
        except KeyError:  # An added token, which some vocabularies list too, is no text in the byte alphabet.
            texts[token_id] = text.encode()
    for token in stored.get("added_tokens", []):
        texts[token["id"]] = token["content"].encode()
    return [texts.get(token_id, b"") for token_id in range(max(texts) + 1)]
