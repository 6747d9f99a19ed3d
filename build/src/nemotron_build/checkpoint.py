"""A Hugging Face checkpoint folder, inspected: what it is, whether it is whole. Reads headers; loads no weights.

Refuses pickled weights (they run code when loaded) and everything whose shapes contradict its own config.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemotron_build.architecture import MODEL_TYPES, Architecture, Dimensions, HybridArchitecture, read_architecture
from nemotron_build.errors import CheckpointError, UnsupportedError
from nemotron_triton.errors import TokenizerError

if TYPE_CHECKING:
    from nemotron_triton.chat.tokens import TokenCodec

MAX_JSON_BYTES = 64 * 1024 * 1024
_WHOLE = "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
# What the build reads, or what must stay on record: settings, templates, model code (never run here), licences.
_TEXT_FILES = ("config.json", "generation_config.json", "special_tokens_map.json", "model.safetensors.index.json")
_TEXT_PATTERNS = ("*.jinja", "chat_template.json", "*.py", "[Ll][Ii][Cc][Ee][Nn][CcSs][Ee]*", "NOTICE*")
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")
# By safetensors' name, in torch's and numpy's spelling.
DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies, and what its header says of it (`dtype` in safetensors' spelling, such as BF16)."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """An inspected checkpoint: every tensor of its architecture is there with the right shape."""

    path: Path
    architecture: Architecture | HybridArchitecture
    tensors: Mapping[str, StoredTensor]
    tokenizer: TokenCodec
    end_ids: tuple[int, ...]
    bos_id: int | None

    @property
    def dtype(self) -> str:
        """What most of the weights are stored in, in torch's spelling: bfloat16, float16 or float32."""
        matrices = Counter(tensor.dtype for tensor in self.tensors.values() if len(tensor.shape) > 1)
        return DTYPES[matrices.most_common(1)[0][0]]

    def token_differences(self, published: Mapping[str, int]) -> list[str]:
        """Where the tokenizer's control tokens differ from a profile's *published* ids; the checkpoint's win."""
        own = {text: self.tokenizer.control_id(text) for text in published}
        return [
            f"no token {text}" if own[text] is None else f"token {text} {own[text]} instead of {token_id}"
            for text, token_id in published.items()
            if own[text] != token_id
        ]

    @property
    def files(self) -> list[Path]:
        """Every file the build depends on, sorted by name."""
        weights = {tensor.file for tensor in self.tensors.values()}
        texts = {self.path / name for name in (*_TEXT_FILES, *TOKENIZER_FILES)}
        texts |= {path for pattern in _TEXT_PATTERNS for path in self.path.glob(pattern)}
        return sorted(weights | {path for path in texts if path.is_file()})

    @property
    def files_beside_weights(self) -> list[Path]:
        """Those of `files` that hold no weights."""
        weights = {tensor.file for tensor in self.tensors.values()}
        return [path for path in self.files if path not in weights]

    @property
    def licence_files(self) -> list[Path]:
        """Its licence and notices, which a bundle has to carry on."""
        return [path for path in self.files if path.name.lower().startswith(("licen", "notice"))]


def _download(path: Path) -> str:
    """How to get what *path* names, where that looks like a repository of Hugging Face."""
    if not _REPOSITORY.fullmatch(str(path)):
        return ""
    return f"; of a Hugging Face repository, `hf download {path} --local-dir {path.name}` makes one"


def inspect(
    path: Path, *, model_types: Sequence[str] = MODEL_TYPES, purpose: str = "engines", query_rows: int | None = None
) -> Checkpoint:
    """The checkpoint at *path*; `CheckpointError` or `UnsupportedError` says what is wrong with it.

    *purpose*, a plural, is what is made of *model_types* alone: a model of the wrong kind is the first thing to say.
    *query_rows*, the rows of a `q_proj`, is for what an unfinished build left of a checkpoint: everything but weights.
    """
    if not path.is_dir():
        raise CheckpointError(
            f"no checkpoint at {path}: give the folder that holds config.json and *.safetensors{_download(path)}"
        )
    config = read_json(path / "config.json")
    if (model_type := config.get("model_type")) not in model_types:
        raise UnsupportedError(
            f"config.json has model_type {model_type!r}; {purpose} are made from: {', '.join(model_types)}"
        )
    tensors = {} if query_rows else dict(_stored_tensors(path))
    queries = (tensor.shape[0] for name, tensor in tensors.items() if name.endswith(".q_proj.weight"))
    architecture = read_architecture(config, query_rows or next(queries, None))
    if not query_rows:
        _check_shapes(architecture, tensors)
    tokenizer = _check_tokenizer(path, architecture)
    generation = read_json(path / "generation_config.json") if (path / "generation_config.json").is_file() else {}
    end_ids = _token_ids("eos_token_id", generation.get("eos_token_id") or config.get("eos_token_id"), tokenizer)
    if not end_ids:
        raise CheckpointError(
            f"{path} names no eos_token_id in generation_config.json or config.json: nothing would end"
        )
    return Checkpoint(
        path=path,
        architecture=architecture,
        tensors={name: tensors[name] for name in architecture.tensors() if name in tensors},
        tokenizer=tokenizer,
        end_ids=end_ids,
        bos_id=next(iter(_token_ids("bos_token_id", config.get("bos_token_id"), tokenizer)), None),
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(
                f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB; this is not a model's {path.name}"
            )
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} has no {path.name}; is it a Hugging Face checkpoint folder?") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    return value


def _stored_tensors(path: Path) -> Iterator[tuple[str, StoredTensor]]:
    # Planning and `nemotron doctor` work where it is not installed.
    from safetensors import SafetensorError, safe_open

    files, weight_map = _weight_files(path)
    seen: dict[str, Path] = {}
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{file} is no regular file; download it again")
        try:
            with safe_open(file, framework="np") as stored:
                for name in stored.keys():  # noqa: SIM118 - safe_open is not a mapping
                    if seen.setdefault(name, file) != file:
                        raise CheckpointError(f"{name} is in {seen[name].name} and in {file.name}; which one is meant?")
                    if weight_map.get(name, file.name) != file.name:
                        raise CheckpointError(f"{name} is in {file.name}, and the index says {weight_map[name]}")
                    header = stored.get_slice(name)
                    yield name, StoredTensor(file, tuple(header.get_shape()), header.get_dtype())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} is truncated or not safetensors ({error}); download it again") from error


def _weight_files(path: Path) -> tuple[list[Path], dict[str, str]]:
    """The files that hold the weights, as transformers would choose them too, and the index's tensor → file."""
    files = sorted(path.glob("*.safetensors"))
    if not files:
        pickles = sorted(file.name for file in path.iterdir() if file.suffix in {".bin", ".pt", ".pth"})
        hint = f"; {pickles[0]} is a pickle, which is never loaded: convert it to safetensors" if pickles else ""
        raise CheckpointError(f"{path} has no *.safetensors{hint}")
    names = {file.name for file in files}
    index = path / "model.safetensors.index.json"
    if not index.exists():
        return [path / _WHOLE] if _WHOLE in names else files, {}
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(value, str) for value in weight_map.values()):
        raise CheckpointError(f"{index} has no weight_map of tensors to files; download it again")
    listed = set(weight_map.values())
    if missing := sorted(listed - names):
        raise CheckpointError(f"{path} lacks {missing[0]}, which {index.name} lists; download it again")
    if _WHOLE in names and listed != {_WHOLE}:
        raise CheckpointError(f"{path} has {_WHOLE} and an index of other files; remove the one that is not meant")
    return [path / name for name in sorted(listed)], weight_map


def _check_shapes(architecture: Dimensions, tensors: Mapping[str, StoredTensor]) -> None:
    for name, shape in architecture.tensors().items():
        if name not in tensors:
            raise CheckpointError(f"the weights lack {name}, which config.json implies; download the checkpoint again")
        if tensors[name].shape != shape:
            raise CheckpointError(f"{name} has shape {list(tensors[name].shape)}, config.json implies {list(shape)}")
        if tensors[name].dtype not in DTYPES:
            raise CheckpointError(f"{name} is {tensors[name].dtype}; give the 16-bit checkpoint, not a quantised one")


def _check_tokenizer(path: Path, architecture: Dimensions) -> TokenCodec:
    # Imports what renders prompts too, which planning a known model does without.
    from nemotron_triton.chat.tokens import TokenCodec

    file = path / "tokenizer.json"
    if not file.is_file():
        raise CheckpointError(f"{path} has no tokenizer.json; the engine cannot read or write text without it")
    try:
        codec = TokenCodec(file)
    except TokenizerError as error:
        raise CheckpointError(str(error)) from error
    if codec.vocab_size > architecture.vocab_size:
        raise CheckpointError(
            f"{file} has ids up to {codec.vocab_size - 1}, the model {architecture.vocab_size} tokens; "
            "they do not belong together"
        )
    return codec


def _token_ids(name: str, value: object, tokenizer: TokenCodec) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for token_id in ids:
        if not isinstance(token_id, int) or not tokenizer.bytes_of(token_id):
            raise CheckpointError(f"{name} names {token_id!r}, which is no id of the tokenizer")
    return tuple(ids)
