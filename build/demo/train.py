"""Train the demo checkpoint from nothing and measure it: `python build/demo/train.py --output DIR`.

Needs torch (`pip install '.[train]'`), two cores and no network. What is measured, on held-out prompts, is the engine
bundle that `nemotron build-engine` makes of the result. The model follows the protocol of Llama Nemotron Nano; it knows
next to nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn import functional

import evaluate
import model as llama
import tokenizer as words
from batches import Batch, copy_batches, lesson_batches, prompt
from conversations import held_out, lessons
from muon import Muon
from nemotron_build.engine import EngineSpec, build
from nemotron_triton.atomic import atomic_folder
from nemotron_triton.bundle import Bundle
from scoring import summary

CARD = Path(__file__).with_name("card.md")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides which checkpoint comes out."""

    steps: int = 4000
    seed: int = 1
    copy_steps: int = 200
    copy_rows: int = 32
    lesson_rows: int = 12
    lesson_copy_rows: int = 8
    copy_share: float = 0.5
    copy_until: float = 0.45
    warm_up_steps: int = 60
    flat_until: float = 0.3
    matrix_rate: float = 0.015
    other_rate: float = 2e-3
    held_out: int = 1000
    start: Path | None = None

    def rate_scale(self, step: int) -> float:
        """The factor of the learning rates: up at the start of each phase, flat, then down to 2 %."""
        phase = step if step < self.copy_steps else step - self.copy_steps
        down = 1 - (step / self.steps - self.flat_until) / (1 - self.flat_until) * 0.98
        return min((phase + 1) / self.warm_up_steps, 1.0) * min(1.0, down)


def continued(start: Path, steps: int) -> Recipe:
    """The recipe to continue from a checkpoint: lower rates that fall early, and no copying before the lessons."""
    return Recipe(
        start=start,
        steps=steps,
        copy_steps=0,
        copy_until=0.4,
        warm_up_steps=30,
        flat_until=0.15,
        matrix_rate=0.012,
        other_rate=1.5e-3,
    )


def main() -> None:
    """Parse, train, measure, write."""
    parser = argparse.ArgumentParser(description="Train the demo checkpoint on synthetic conversations, on the CPU.")
    parser.add_argument("--output", type=Path, required=True, help="folder to write; an existing one is replaced")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="training steps (default %(default)s)")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="default %(default)s")
    parser.add_argument("--held-out", type=int, default=Recipe.held_out, help="prompts to measure on")
    parser.add_argument("--start", type=Path, help="go on from this checkpoint instead of from random weights")
    options = parser.parse_args()
    recipe = continued(options.start, options.steps) if options.start else Recipe(steps=options.steps)
    recipe = replace(recipe, seed=options.seed, held_out=options.held_out)
    with atomic_folder(options.output, replace=True) as folder:
        values = make(recipe, folder)
    # The weights are safe before anything else can go wrong.
    with tempfile.TemporaryDirectory() as scratch:
        values |= measure(recipe, options.output, Path(scratch) / "bundle")
    card = CARD.read_text(encoding="utf-8")
    for name, value in values.items():
        card = card.replace(f"@{name}@", value)
    (options.output / "README.md").write_text(card, encoding="utf-8")


def make(recipe: Recipe, directory: Path) -> dict[str, str]:
    """Write a checkpoint into *directory*; the values for its card."""
    torch.manual_seed(recipe.seed)
    started = time.monotonic()
    if recipe.start:
        tokenizer, model = Tokenizer.from_file(str(recipe.start / "tokenizer.json")), llama.read(recipe.start)
    else:
        conversations = (item for lesson in islice(lessons(recipe.seed), 4000) for item in lesson)
        tokenizer = words.train(text for item in conversations for text in (prompt(item), item.expected))
        model = llama.Llama(llama.Shape())
        model.start_copying()
    words.write(tokenizer, directory)
    reserved = {prompt(item) for item in islice(held_out(evaluate.SEED), recipe.held_out)}
    train(recipe, tokenizer, model, reserved)
    tokens = control_ids(tokenizer)
    generation = {**tokens, "do_sample": True, "temperature": 0.6, "top_p": 0.95}
    (directory / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")
    llama.write(model, directory, tokens)
    return {
        "parameters": f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}",
        "minutes": f"{(time.monotonic() - started) / 60:.0f}",
        "steps": str(recipe.steps),
        "seed": str(recipe.seed),
    }


def measure(recipe: Recipe, checkpoint: Path, bundle: Path) -> dict[str, str]:
    """Build *bundle* from the checkpoint and measure it; the values for its card."""
    build(EngineSpec(checkpoint=checkpoint, gpu="cpu"), bundle)
    figures = evaluate.table(summary(asyncio.run(evaluate.measure(Bundle.open(bundle), recipe.held_out))))
    say(figures)
    return {"figures": figures, "held-out": str(recipe.held_out)}


def train(recipe: Recipe, tokenizer: Tokenizer, model: llama.Llama, without: set[str]) -> None:
    """Train *model* on copy sequences, then on lessons mixed with some; never on a prompt in *without*."""
    matrices = [weight for weight in model.layers.parameters() if weight.ndim == 2]
    others = [model.embed_tokens.weight, *(weight for weight in model.parameters() if weight.ndim == 1)]
    muon = Muon(matrices, recipe.matrix_rate)
    adam = torch.optim.AdamW(others, lr=recipe.other_rate, betas=(0.9, 0.95), weight_decay=0.0)
    talk = lesson_batches(tokenizer, recipe.seed, recipe.lesson_rows, without=without)
    copies = copy_batches(tokenizer, recipe.seed, recipe.copy_rows)
    few_copies = copy_batches(tokenizer, recipe.seed + 1, recipe.lesson_copy_rows)
    started, shown = time.monotonic(), {"copying": 0.0, "lessons": 0.0}
    for step in range(recipe.steps):
        scale = recipe.rate_scale(step)
        muon.rate = recipe.matrix_rate * scale
        adam.param_groups[0]["lr"] = recipe.other_rate * scale
        model.zero_grad()
        if step < recipe.copy_steps:
            learn(model, next(copies), 1.0, "copying", shown)
        else:
            learn(model, next(talk), 1.0, "lessons", shown)
            if step < recipe.copy_until * recipe.steps:
                learn(model, next(few_copies), recipe.copy_share, "copying", shown)
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        muon.step()
        adam.step()
        if (step + 1) % 50 == 0:
            losses = ", ".join(f"{name} {value:.4f}" for name, value in shown.items())
            say(f"step {step + 1} of {recipe.steps}, {(time.monotonic() - started) / 60:.1f} min, loss: {losses}")


def learn(model: llama.Llama, batch: Batch, share: float, name: str, shown: dict[str, float]) -> None:
    """Add the gradients of one batch; its loss goes into the running mean under *name*."""
    loss = functional.cross_entropy(model.logits(model(batch.ids).flatten(0, 1)[batch.counted]), batch.targets)
    (share * loss).backward()  # type: ignore[no-untyped-call]
    shown[name] = 0.95 * shown[name] + 0.05 * loss.item() if shown[name] else loss.item()


def control_ids(tokenizer: Tokenizer) -> dict[str, int | list[int]]:
    """The ids under their names in Hugging Face files; three tokens end a turn."""
    ends = [words.token_id(tokenizer, text) for text in (words.END_OF_TURN, "<|end_of_text|>", "<|eom_id|>")]
    begin, pad = words.token_id(tokenizer, words.BEGIN), words.token_id(tokenizer, words.PAD)
    return {"bos_token_id": begin, "eos_token_id": ends, "pad_token_id": pad}


def say(line: str) -> None:
    """Write a line of progress."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
