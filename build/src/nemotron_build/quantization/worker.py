"""What runs inside a ModelOpt environment: one job, read from a JSON file; progress and result go to stdout as JSON.

Imports nothing of ours, because that environment has nothing of ours. Everything the libraries print goes to stderr.
Reads safetensors only, never remote code. Jobs: `quantize`, `export_tensorrt_llm`, `export_hf`, `measure`.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import modelopt.torch.opt as mto
import modelopt.torch.quantization as mtq
import numpy as np
import torch
from transformers import AutoModelForCausalLM

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_BYTES_PER_THREAD = 32 << 20
_OFF: dict[str, Any] = {"enable": False}


class JobError(Exception):
    """The job cannot be done; the text is one line for a person."""


def main() -> None:
    """Do the job in the file named by the first argument."""
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)

    def tell(**message: Any) -> None:
        out.write(json.dumps(message) + "\n")

    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.manual_seed(0)
    if job["device"] == "auto":
        job["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        tell(result=_JOBS[job.pop("job")](tell=tell, **job))
    except JobError as error:
        tell(error=str(error))
    except Exception as error:
        traceback.print_exc()
        tell(error=f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")


def quantize(
    *,
    tell: Callable[..., None],
    checkpoint: str,
    output: str,
    quantization: dict[str, Any],
    dtype: str,
    calibration: list[list[int]],
    held_out: list[list[list[int]]],
    device: str,
) -> dict[str, Any]:
    """Quantise *checkpoint* into *output* (ModelOpt's Hugging Face form) and measure it on *held_out*.

    *quantization* is a `name` for people, ModelOpt's `preset`, the `quantizers` to change in it, a `block_size` where
    it is not the preset's, and whether it is `cuda_only`.
    """
    with tempfile.TemporaryDirectory(dir=output) as scratch:
        model = _load(checkpoint, dtype, device)
        reference = Reference(model, held_out, Path(scratch) / "logits", functools.partial(tell, what="source"))
        model = _quantized(model, quantization, calibration, tell)
        quality = reference.compare(model, functools.partial(tell, what="quantised"))
    mto.enable_huggingface_checkpointing()
    model.save_pretrained(output)
    return quality


def export(
    write: Callable[[Any, str, str], None],
    *,
    tell: Callable[..., None],
    source: str,
    quantized: bool,
    output: str,
    dtype: str,
    device: str,
) -> None:
    """Write *source* into *output* as a checkpoint that TensorRT-LLM reads.

    If it is *quantized*, ModelOpt unpickles its state: *source* must be what `quantize` saved, never what others made.
    """
    if quantized:
        mto.enable_huggingface_checkpointing()
    model = _load(source, dtype, device)
    tell(what="export", done=0, total=1)
    with torch.inference_mode():
        write(model, dtype, output)
    tell(what="export", done=1, total=1)


def _write_tensorrt_llm(model: Any, dtype: str, output: str) -> None:
    from modelopt.torch.export import export_tensorrt_llm_checkpoint

    export_tensorrt_llm_checkpoint(model, "llama", _DTYPES[dtype], output, inference_tensor_parallel=1)


def _write_hf(model: Any, _: str, output: str) -> None:
    from modelopt.torch.export import export_hf_checkpoint

    export_hf_checkpoint(model, export_dir=output)


def measure(
    *,
    tell: Callable[..., None],
    checkpoint: str,
    measured: list[dict[str, Any]],
    dtype: str,
    calibration: list[list[int]],
    held_out: list[list[list[int]]],
    device: str,
    scratch: str,
    plot: str | None,
) -> dict[str, Any]:
    """What each quantisation costs on *held_out*: its name → measurements, or why it could not be had.

    *measured* are the quantisations, each with the dtype that it is loaded in.
    """
    results: dict[str, Any] = {}
    steps = len(measured) + 1
    tell(what="source", done=0, total=steps)
    reference = Reference(_load(checkpoint, dtype, device), held_out, Path(scratch) / "logits", lambda **_: None)
    for done, row in enumerate(measured, start=1):
        name = row["quantization"]["name"]
        tell(what=name, done=done, total=steps)
        try:
            model = _load(checkpoint, row["dtype"], device)
            model = _quantized(model, row["quantization"], calibration, lambda **_: None)
        except JobError as error:
            results[name] = {"unavailable": str(error)}
            continue
        results[name] = reference.compare(model, lambda **_: None)
    tell(what="done", done=steps, total=steps)
    if plot:
        _plot(results, plot)
    return results


class Reference:
    """What the source model predicts for held-out answers, kept on disk: logits, float32, shape (tokens, vocabulary).

    *pairs* are prompts and answers as token ids.
    """

    def __init__(self, model: Any, pairs: list[list[list[int]]], path: Path, tell: Callable[..., None]) -> None:
        self._pairs = pairs
        self._total = sum(len(answer) for _, answer in pairs)
        self._device = next(model.parameters()).device
        self._logits: Any = None
        loss = 0.0
        for done, (start, logits, answer) in enumerate(self._run(model), start=1):
            if self._logits is None:
                _reserve(path, self._total * logits.shape[-1] * 4)
                self._logits = np.memmap(path, np.float32, "r+", shape=(self._total, logits.shape[-1]))
            self._logits[start : start + len(answer)] = logits.cpu().numpy()
            loss += float(torch.nn.functional.cross_entropy(logits, answer, reduction="sum"))
            tell(done=done, total=len(pairs))
        self._perplexity = float(np.exp(min(loss / self._total, 700.0)))

    def compare(self, model: Any, tell: Callable[..., None]) -> dict[str, Any]:
        """Perplexity of both, share of tokens with the same best guess, mean KL divergence in nats per token."""
        loss = agreed = divergence = 0.0
        for done, (start, logits, answer) in enumerate(self._run(model), start=1):
            source = torch.from_numpy(self._logits[start : start + len(answer)].copy()).to(self._device)
            loss += float(torch.nn.functional.cross_entropy(logits, answer, reduction="sum"))
            agreed += float((source.argmax(-1) == logits.argmax(-1)).sum())
            probabilities = logits.log_softmax(-1), source.log_softmax(-1)
            divergence += float(torch.nn.functional.kl_div(*probabilities, log_target=True, reduction="sum"))
            tell(done=done, total=len(self._pairs))
        return {
            "tokens": self._total,
            "perplexity_source": self._perplexity,
            "perplexity": float(np.exp(min(loss / self._total, 700.0))),
            "top1_agreement": agreed / self._total,
            "kl_divergence_nats": max(0.0, divergence / self._total),
        }

    def _run(self, model: Any) -> Iterator[tuple[int, Any, Any]]:
        start = 0
        for prompt, answer in self._pairs:
            tokens = torch.tensor([prompt + answer], device=self._device)
            with torch.inference_mode():
                logits = model(tokens, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
            yield start, logits, tokens[0, len(prompt) :]
            start += len(answer)


def _reserve(path: Path, size: int) -> None:
    """Make *path* a file of *size* bytes that the disk really has room for; a sparse one would end in SIGBUS."""
    with path.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise JobError(f"no room for {size / 1e6:.0f} MB of logits in {path.parent}: {error.strerror}") from error


def _load(checkpoint: str, dtype: str, device: str) -> Any:
    # A small model gains nothing from more threads, and beside other work they only wait for each other.
    stored = sum(file.stat().st_size for file in Path(checkpoint).glob("*.safetensors"))
    torch.set_num_threads(max(1, min(os.cpu_count() or 1, stored // _BYTES_PER_THREAD)))
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=_DTYPES[dtype], use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    # transformers 5.14 cannot make a cache for nemotron_h (it has none for MLP layers), and nothing here needs one.
    model.config.use_cache = False
    return model.eval().to(device)


def _quantized(
    model: Any, quantization: dict[str, Any], calibration: list[list[int]], tell: Callable[..., None]
) -> Any:
    config = _config(quantization)
    if config is None:
        return model
    device = next(model.parameters()).device
    if quantization["cuda_only"] and device.type != "cuda":
        raise JobError(f"ModelOpt quantises to {quantization['name'].upper()} on a CUDA device only")

    def calibrate(model: Any) -> None:
        for done, ids in enumerate(calibration, start=1):
            with torch.inference_mode():
                model(torch.tensor([ids], device=device), use_cache=False)
            tell(what="calibration", done=done, total=len(calibration))

    with torch.inference_mode():
        model = mtq.quantize(model, config, calibrate)
    for name, module in model.named_modules():
        amax = getattr(module, "_amax", None)
        if amax is not None and not torch.isfinite(amax).all():
            raise JobError(f"calibration left {name} with a range that is not finite")
    return model


def _config(quantization: dict[str, Any]) -> dict[str, Any] | None:
    """ModelOpt's configuration; None when nothing is quantised. lm_head and the embedding stay as they are."""
    preset, quantizers = quantization["preset"], quantization["quantizers"]
    if not preset and not quantizers:
        return None
    if preset and not hasattr(mtq, preset):
        raise JobError(f"this ModelOpt has no {preset}, by which it would quantise to {quantization['name']}")
    config: dict[str, Any] = copy.deepcopy(getattr(mtq, preset or "INT8_DEFAULT_CFG"))
    rules = config["quant_cfg"]
    if not preset:
        rules.clear()
        _set(rules, "*" if isinstance(rules, list) else "default", _OFF)
    if quantization["block_size"]:
        weights = _get(rules, "*weight_quantizer")
        (weights[0] if isinstance(weights, list) else weights)["block_sizes"][-1] = quantization["block_size"]
    for name, settings in quantizers.items():
        # JSON has no tuples, and ModelOpt takes no list for exponent and mantissa.
        _set(rules, name, {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()})
    return config


def _set(rules: Any, name: str, settings: dict[str, Any]) -> None:
    """Settle the quantizers called *name*: a dict in ModelOpt 0.37, in 0.47 a list where later rules win."""
    if isinstance(rules, dict):
        rules[name] = settings
        return
    cfg = {key: value for key, value in settings.items() if key != "enable"}
    change = {"quantizer_name": name, "enable": settings.get("enable", True)} | ({"cfg": cfg} if cfg else {})
    # In its place, or what comes after it (lm_head and convolutions stay as they are) would be undone.
    at = next((i for i, rule in enumerate(rules) if rule["quantizer_name"] == name), len(rules))
    rules[at : at + 1] = [change]


def _get(rules: Any, name: str) -> Any:
    if isinstance(rules, dict):
        return rules[name]
    return next(rule["cfg"] for rule in rules if rule["quantizer_name"] == name)


def _plot(results: dict[str, Any], path: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    rows = {name: values for name, values in results.items() if "unavailable" not in values}
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 0.45 * len(rows) + 1.6), sharey=True, layout="constrained")
    panels = [
        ("kl_divergence_nats", "KL divergence from the source, nats per token"),
        ("top1_agreement", "same best token as the source"),
        ("perplexity", "perplexity (dashed: source)"),
    ]
    for axis, (key, title) in zip(axes, panels, strict=True):
        bars = axis.barh(list(rows), [values[key] for values in rows.values()], color="#76b900")
        axis.bar_label(bars, fmt="%.4g", padding=3, fontsize=8)
        axis.set_title(title, fontsize=9)
        axis.margins(x=0.2)
        axis.spines[["top", "right"]].set_visible(False)
    axes[2].axvline(next(iter(rows.values()))["perplexity_source"], color="black", linestyle="--", linewidth=1)
    axes[0].invert_yaxis()
    partial = path + ".partial"
    figure.savefig(partial, dpi=150, format="png", metadata={"Software": None})
    shutil.move(partial, path)


_JOBS: dict[str, Callable[..., Any]] = {
    "quantize": quantize,
    "export_tensorrt_llm": functools.partial(export, _write_tensorrt_llm),
    "export_hf": functools.partial(export, _write_hf),
    "measure": measure,
}

if __name__ == "__main__":
    main()
