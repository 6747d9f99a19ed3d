"""Measure a built bundle of the demo checkpoint on held-out prompts: `python build/demo/evaluate.py BUNDLE`.

The same prompts and scores as at the end of `train.py`, with the engine and the precision that are served. No torch.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from conversations import Conversation, held_out
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.conversation import read_conversation
from nemotron_triton.chat.render import RenderOptions, render_prompt
from nemotron_triton.chat.tokens import Detokenizer, TokenCodec
from nemotron_triton.engine.interface import Sampling
from nemotron_triton.engine.start import start_engine
from nemotron_triton.engine.stream import TokenStream
from scoring import Score, score, summary

SEED = 1001


async def measure(bundle: Bundle, count: int, *, show_wrong: bool = False) -> list[Score]:
    """Score *count* held-out conversations with the sampling that the profile recommends for each mode."""
    codec = TokenCodec(bundle.tokenizer_path)
    engine = start_engine(bundle, codec)

    async def ask(number: int, item: Conversation) -> Score:
        conversation = read_conversation(item.messages, item.tools)
        ids = codec.encode(render_prompt(bundle.profile, conversation, RenderOptions(thinking=item.thinking)))
        mode = bundle.profile.sampling(thinking=item.thinks)
        sampling = Sampling(max_tokens=200, temperature=mode.temperature, top_p=mode.top_p, seed=number)
        detokenizer = Detokenizer(codec)
        text, reason = "", None
        stream = TokenStream(lambda: 0.0)
        engine.generate(ids, sampling, stream)
        async for chunk in stream:
            text, reason = text + detokenizer.feed(chunk.ids), chunk.finish_reason
        result = score(item, text, finished=reason == "stop")
        if show_wrong and not (result.protocol and result.right):
            sys.stderr.write(f"{item.kind}: {item.messages[-1]['content']!r}: {text!r}, expected {item.expected!r}\n")
        return result

    try:
        return await asyncio.gather(*(ask(number, item) for number, item in enumerate(islice(held_out(SEED), count))))
    finally:
        engine.close()


def table(figures: Mapping[str, tuple[int, int]]) -> str:
    """*figures* as the rows of a Markdown table."""
    return "\n".join(
        f"| {name} | {right} of {count} | {right / count:.1%} |" for name, (right, count) in figures.items()
    )


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description="Measure a bundle of the demo checkpoint on held-out prompts.")
    parser.add_argument("bundle", type=Path, help="what `nemotron build-engine` made of build/demo/checkpoint")
    parser.add_argument("--prompts", type=int, default=1000, help="how many (default %(default)s)")
    parser.add_argument("--show-wrong", action="store_true", help="write every wrong answer to stderr")
    options = parser.parse_args()
    scores = asyncio.run(measure(Bundle.open(options.bundle), options.prompts, show_wrong=options.show_wrong))
    sys.stdout.write(table(summary(scores)) + "\n")


if __name__ == "__main__":
    main()
