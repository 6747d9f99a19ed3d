"""An engine bundle: the directory that is built, verified, copied and served.

Holds the manifest's shape and the checks at load; how a bundle is made is `nemotron_build`'s.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, GetPydanticSchema, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import core_schema

from nemotron_client import wire
from nemotron_triton.chat.profiles import Profile, profile
from nemotron_triton.engine.registry import KINDS
from nemotron_triton.errors import BundleError

SCHEMA_VERSION = 3
# 2 lacks `requires_sm` and is the same otherwise.
READABLE_VERSIONS = (2, SCHEMA_VERSION)
SCHEMA = Path(__file__).with_name("manifest.schema.json")
MANIFEST = "manifest.json"
VARIABLE = "NEMOTRON_BUNDLE"
CHAT_TEMPLATE = "chat_template.jinja"
MAX_MANIFEST_BYTES = 16 * 1024 * 1024


Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
# What `Literal` would be, were the names written here.
Kind = Annotated[str, GetPydanticSchema(lambda *_: core_schema.literal_schema(list(KINDS)))]
_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What the engine needs, bytes."""

    weights_bytes: int
    kv_bytes_per_token: int
    kv_cache_bytes: int
    state_bytes_per_sequence: int = 0

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What quantising cost, on held-out text: perplexities, how often the best token is the source's, divergence."""

    tokens: int
    perplexity_source: float
    perplexity: float
    top1_agreement: float
    kl_divergence_nats: float

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything about a bundle that somebody may have to know later. Digests are SHA-256, paths relative.

    `state` is unfinished for a bundle whose `next_stage` needs a machine that the build did not have; nobody serves it.
    `build_key` is the digest of all that decided the build (`stages` holds that of each stage), `config` every setting
    as it was resolved, `plan` the memory plan and roofline, `llm_args` what TensorRT-LLM's LLM API is called with.
    `requires_sm` is the lowest SM that can load the engine; None where it needs no GPU, and unknown in schema 2.
    """

    profile: str
    gpu: str
    sm: int | None
    kind: Kind
    precision: str
    kv_precision: str
    engine_file: str
    end_ids: list[int]
    max_seq_len: int
    max_batch_size: int
    memory: Memory
    ran_on_this_hardware: bool
    build_key: Digest
    built_at: str
    state: Literal["complete", "unfinished"] = "complete"
    next_stage: str | None = None
    requires_sm: int | None = None
    max_num_tokens: int | None = None
    container: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    llm_args: dict[str, Any] | None = None
    quality: Quality | None = None
    checks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    stages: dict[str, Digest] = field(default_factory=dict)
    profile_differences: list[str] = field(default_factory=list)
    tool_versions: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, Digest] = field(default_factory=dict)
    outputs: dict[str, Digest] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    __pydantic_config__ = _STRICT

    def to_json(self) -> str:
        """The text of `manifest.json`."""
        return json.dumps(asdict(self), indent=2) + "\n"


def manifest_schema() -> str:
    """The JSON Schema of `manifest.json`, as `manifest.schema.json` holds it."""
    schema = TypeAdapter(Manifest).json_schema() | {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(schema, indent=2) + "\n"


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose manifest was read; call `verify` before trusting its files."""

    path: Path
    manifest: Manifest

    @property
    def profile(self) -> Profile:
        """The model profile it was built for."""
        return profile(self.manifest.profile)

    @property
    def engine_path(self) -> Path:
        """The engine's own file."""
        return self.path / self.manifest.engine_file

    @property
    def tokenizer_path(self) -> Path:
        """The checkpoint's `tokenizer.json`."""
        return self.path / "tokenizer" / "tokenizer.json"

    @property
    def chat_template(self) -> str | None:
        """The template given to the build instead of the profile's, if one was; `BundleError` if it is gone."""
        if CHAT_TEMPLATE not in self.manifest.outputs:
            return None
        try:
            return (self.path / CHAT_TEMPLATE).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise BundleError(f"cannot read {self.path / CHAT_TEMPLATE}: {error}", "build the bundle again") from error

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Read the manifest at *path*; `BundleError` says what is wrong and what to do."""
        file = path / MANIFEST
        try:
            status = file.stat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_MANIFEST_BYTES:
                raise BundleError(
                    f"{file} is no file of at most {MAX_MANIFEST_BYTES >> 20} MiB; this is not a manifest",
                    "make a bundle with `nemotron build-engine`",
                )
            text = file.read_text(encoding="utf-8")
            raw = json.loads(text)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BundleError(
                f"no bundle at {path}: it has no {MANIFEST}", "make one with `nemotron build-engine`"
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            raise BundleError(f"cannot read {file}: {error}", "build the bundle again") from error
        version = raw.get("schema_version") if isinstance(raw, dict) else None
        if version not in READABLE_VERSIONS:
            readable = " and ".join(map(str, READABLE_VERSIONS))
            raise BundleError(
                f"{file} has schema version {version!r}, this nemotron reads {readable}", "build the bundle again"
            )
        return cls(path, _read_manifest(file, text, version))

    def file(self, name: str) -> Path:
        """The file *name* of the bundle; `BundleError` when it is missing, no file, or a link that leads elsewhere."""
        path, status = self._inside(name)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path} is not a file", "build or copy the bundle again")
        return path

    def folder(self, name: str) -> Path:
        """The folder *name* of the bundle; `BundleError` as for `file`."""
        path, status = self._inside(name)
        if not stat.S_ISDIR(status.st_mode):
            raise BundleError(f"{path} is not a folder", "build or copy the bundle again")
        return path

    def _inside(self, name: str) -> tuple[Path, os.stat_result]:
        path = self.path / name
        try:
            real = path.resolve(strict=True)
            inside = real.is_relative_to(self.path.resolve())
            status = real.stat()
        except (OSError, ValueError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise BundleError(f"the bundle {self.path} lacks {name} ({reason})", "build or copy it again") from error
        if not inside:
            raise BundleError(f"{path} is a link to what lies outside of the bundle", "do not serve it")
        return path, status

    def problems(self, *, only: Iterable[str] = (), read: Callable[[int], None] | None = None) -> Iterator[BundleError]:
        """Check every file (or *only* those) against its digest; *read* hears how many bytes were read each time."""
        wanted = set(only)
        for name, expected in self.manifest.outputs.items():
            if wanted and name not in wanted:
                continue
            try:
                found = digest(self.file(name), read=read)
            except BundleError as problem:
                yield problem
            except OSError as error:
                yield BundleError(f"cannot read {self.path / name}: {error.strerror}", "build or copy the bundle again")
            else:
                if found != expected:
                    yield BundleError(
                        f"{self.path / name} was changed after the build (SHA-256 {found[:12]}…, the manifest says "
                        f"{expected[:12]}…)",
                        "build or copy the bundle again",
                    )

    def verify(self, *, only: Iterable[str] = ()) -> None:
        """Raise the first of `problems`."""
        for problem in self.problems(only=only):
            raise problem

    def stamp(self) -> str:
        """What stays the same as long as nobody touches manifest or files; reads none of them. Raises `BundleError`."""
        sha256 = hashlib.sha256(self.manifest.to_json().encode())
        for name in self.manifest.outputs:
            _, status = self._inside(name)
            identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            sha256.update(repr(identity).encode())
        return sha256.hexdigest()

    def unlisted(self) -> list[str]:
        """What lies in the bundle and is not in its manifest, sorted; what a link leads to is not looked at."""
        known = {MANIFEST, *self.manifest.outputs}
        names = (
            (Path(folder) / name).relative_to(self.path).as_posix()
            for folder, folders, files in os.walk(self.path)
            for name in (*files, *(each for each in folders if (Path(folder) / each).is_symlink()))
        )
        return sorted(name for name in names if name not in known)


def bundle_link(repository: Path) -> Path:
    """Where the bundle lies in a model repository: beside the adapter of the model that loads its engine."""
    return repository / wire.MODEL_NAME / "1" / "bundle"


def bundle_beside(args: Mapping[str, str]) -> Bundle:
    """The bundle of the repository that a model is in, from the arguments Triton gives to any; raises `BundleError`.

    `NEMOTRON_BUNDLE` names it for a repository that has none, as `model_repo/` in a checkout. Elsewhere the variable
    means nothing: what a written repository serves is not for the environment to change.
    """
    link = bundle_link(Path(args["model_repository"]).parent)
    if os.path.lexists(link):
        # Where the link leads now: it may be turned to another bundle while this one is being loaded.
        return Bundle.open(link.resolve())
    if named := os.environ.get(VARIABLE):
        return Bundle.open(Path(named).resolve())
    raise BundleError(
        f"this model repository holds no bundle, and {VARIABLE} names none",
        f"set {VARIABLE} to a bundle's folder, or write a repository with `nemotron model-repo`",
    )


def digest(path: Path, *, read: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of a file, in hex; *read* hears the size of every block."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
            if read:
                read(len(block))
    return sha256.hexdigest()


def _read_manifest(file: Path, text: str, version: int) -> Manifest:
    try:
        manifest = TypeAdapter(Manifest).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(
            f"{file} is not a manifest of schema {version}: {where}: {first['msg']}", "build the bundle again"
        ) from error
    for name in (*manifest.outputs, manifest.engine_file):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BundleError(f"{file} names {name!r}, which lies outside of the bundle", "do not serve it")
    return manifest
