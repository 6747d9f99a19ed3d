"""A Hugging Face checkpoint in a bundle: the source as it is, or what ModelOpt exports with the source's own files.

Seen with ModelOpt 0.47 and transformers 5.14, both without a word: config.json comes out in the names of transformers 5
(`rope_parameters`, `layers_block_type`), from which 4.57, TensorRT-LLM 1.2.1's, takes a default rotary base and no
layers; and what a `nemotron_h` excludes from quantisation carries a marker in its name, so that no loader finds it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from nemotron_build.checkpoint import Checkpoint, read_json
from nemotron_build.stages.pipeline import Stage, Work
from nemotron_build.stages.plan import BuildPlan
from nemotron_build.stages.workspace import copy_file

# ModelOpt ends a name in ".\0modelopt_…" while it renames modules, and renames the marker's own "model" to "backbone."
# too, by which it does not know it again.
_MARKER = re.compile(r"\.\\u0000[^\"]*")
_OWN = ("config.json", "model.safetensors.index.json")


def take_stage(plan: BuildPlan, digests: Mapping[str, str], template: str | None = None) -> Stage:
    """The checkpoint as it is, in `checkpoint/`; *template* is for one without a `chat_template.jinja`."""

    def make(work: Work) -> None:
        for path in plan.checkpoint.files:
            copy_file(path, work.folder / "checkpoint" / path.name)
        place = work.folder / "checkpoint" / "chat_template.jinja"
        if template and not place.exists():
            place.write_text(template, encoding="utf-8")

    settings = {"inputs": dict(digests), "template": template}
    return Stage(name="convert", make=make, settings=settings, reads_source=True)


def complete_export(folder: Path, source: Checkpoint) -> None:
    """Give *folder*, ModelOpt's export of *source*, the settings, tokenizer, templates, code and licence of *source*.

    config.json is the source's, with the quantisation and the type of what was not quantised.
    """
    for path in folder.glob("*.json"):
        path.write_text(_MARKER.sub("", path.read_text(encoding="utf-8")), encoding="utf-8")
    exported, config = read_json(folder / "config.json"), read_json(source.path / "config.json")
    dtype = {"dtype" if "dtype" in config else "torch_dtype": exported.get("dtype")}
    quantization = {"quantization_config": exported.get("quantization_config")}
    (folder / "config.json").write_text(json.dumps(config | dtype | quantization, indent=2), encoding="utf-8")
    for path in source.files_beside_weights:
        if path.name not in _OWN:
            copy_file(path, folder / path.name)
