"""Print `docs/answers.md` with the table of what each engine kind can do, from what the engines themselves refuse.

An engine is asked as it is when it was built with the arguments that a build writes today.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemotron_build.commands.limits import Limits
from nemotron_build.commands.llm_api import LlmCall
from nemotron_build.kinds import KINDS
from nemotron_build.precisions import PRECISIONS
from nemotron_triton.engine.interface import Sampling, engine_class

PAGE = Path(__file__).parents[1] / "docs" / "answers.md"
BEGIN, END = "<!-- written by ci/engines -->\n", "<!-- until here -->\n"
# How a caller says each field of `Sampling`; those with a dot are about a part of it.
ROWS = {
    "max_tokens": "`max_tokens`",
    "temperature": "`temperature`",
    "top_p": "`top_p`",
    "top_k": "`top_k`",
    "min_p": "`min_p`",
    "seed": "`seed`",
    "repetition_penalty": "`repetition_penalty`",
    "presence_penalty": "`presence_penalty`",
    "frequency_penalty": "`frequency_penalty`",
    "no_repeat_ngram_size": "`no_repeat_ngram_size`",
    "min_tokens": "`min_tokens`",
    "ignore_end": "`end_id` -1",
    "stop_ids": "`stop_token_ids`",
    "bad_ids": "`bad_words`",
    "logit_bias": "`embedding_bias_words`",
    "logprobs": "log probabilities",
    "guide": "a JSON schema, an expression, a forced call",
    "guide.thinking": "a JSON schema or an expression behind thinking",
    "guide.characters": "a forced call, with over 70,000 characters beyond ASCII in its patterns",
}


def columns() -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Each column's kind, and the LLM API's arguments that its builds write, by the column's title."""
    call = LlmCall(
        model="engine",
        tokenizer="tokenizer",
        limits=Limits(max_batch_size=1, max_input_len=1, max_num_tokens=1, max_seq_len=2),
        free_gpu_memory_fraction=0.9,
        chunks_prompts=True,
        kv=PRECISIONS.find_kv("bf16"),
    )
    hybrid = dataclasses.replace(call, hybrid=True)
    arguments = {"tensorrt": {"": call.on_engine()}}
    arguments["pytorch"] = {" (Llama)": call.on_checkpoint(), " (`nemotron_h`)": hybrid.on_checkpoint()}
    return {
        f"`{kind.name}`{model}": (kind.name, llm_args)
        for kind in KINDS
        for model, llm_args in arguments.get(kind.name, {"": {}}).items()
    }


def table() -> str:
    """The table, and below it why what is not possible is not."""
    unknown = {field.name for field in dataclasses.fields(Sampling)} ^ ({row for row in ROWS if "." not in row})
    if unknown:
        raise SystemExit(f"ROWS and the fields of Sampling differ in {', '.join(sorted(unknown))}")
    kinds = columns()
    refused = {title: engine_class(kind).unsupported(llm_args) for title, (kind, llm_args) in kinds.items()}
    tried = {kind.name: kind.ran_on_hardware for kind in KINDS}
    numbers: dict[str, int] = {}

    def cell(title: str, field: str) -> str:
        reason = refused[title].get(field) or refused[title].get(field.partition(".")[0])
        return "yes" if reason is None else f"no ({numbers.setdefault(reason, len(numbers) + 1)})"

    rows = [["", *kinds], ["---"] * (len(kinds) + 1)]
    rows += [[name, *(cell(title, field) for title in kinds)] for field, name in ROWS.items()]
    rows.append(["run on hardware", *("yes" if tried[kind] else "**no**" for kind, _ in kinds.values())])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", *(f"{number}. {reason}" for reason, number in numbers.items())]) + "\n"


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    sys.stdout.write(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}")
