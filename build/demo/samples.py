"""Write the conversations that the demo checkpoint is quantised with: `python build/demo/samples.py`.

`calibration.jsonl` and `held-out.jsonl`, beside this file, in the form that `nemotron quality` and `build-engine` read:
the general samples that come with the project have words that this model never learned.
"""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

from conversations import Conversation, held_out

_FOLDER = Path(__file__).parent
# Seeds of their own: neither the lessons' nor the evaluation's.
_FILES = {"calibration.jsonl": (2001, 48), "held-out.jsonl": (2002, 48)}


def sample(item: Conversation) -> dict[str, Any]:
    """*item* with the expected answer as its last message, the thinking apart."""
    thought, closer, rest = item.expected.partition("</think>")
    answer: dict[str, Any] = {"role": "assistant", "content": rest.lstrip("\n") if closer else item.expected}
    if closer:
        answer["reasoning_content"] = thought.removeprefix("<think>").strip("\n")
    sampled: dict[str, Any] = {"messages": [*item.messages, answer]}
    if item.tools:
        sampled["tools"] = item.tools
    if item.thinking is not None:
        sampled["thinking"] = item.thinking
    return sampled


def main() -> None:
    """Write both files."""
    for name, (seed, count) in _FILES.items():
        lines = (json.dumps(sample(item), ensure_ascii=False) + "\n" for item in islice(held_out(seed), count))
        (_FOLDER / name).write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
