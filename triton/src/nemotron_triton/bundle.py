"""An engine bundle: the directory that is built, verified, copied and served.

Has the manifest and the checks of a bundle's files; `nemotron_build` makes bundles.
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
_REBUILD = "build the bundle again"
_UPDATE = "a newer nemotron made it: serve it with that one, or build the bundle again"
_REPLACE = "build or copy the bundle again"

Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
# A `Literal` of the names in the registry.
Kind = Annotated[str, GetPydanticSchema(lambda *_: core_schema.literal_schema(list(KINDS)))]
_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The memory that the engine needs, bytes."""

    weights_bytes: int
    kv_bytes_per_token: int
    kv_cache_bytes: int
    state_bytes_per_sequence: int = 0

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The loss by quantisation, on held-out text; `top1_agreement` is how often the best token is the source's."""

    tokens: int
    perplexity_source: float
    perplexity: float
    top1_agreement: float
    kl_divergence_nats: float

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """How a bundle was built, and what is in it. Digests are SHA-256, paths relative.

    `state` is unfinished for a bundle whose `next_stage` needs a machine that the build did not have; it is not served.
    `build_key` is the digest of all inputs of the build (`stages` has that of each stage), `config` every setting as it
    was resolved, `plan` the memory plan and roofline, `llm_args` the arguments of TensorRT-LLM's LLM API.
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
        """The template that the build was given instead of the profile's; `BundleError` if its file is gone."""
        if CHAT_TEMPLATE not in self.manifest.outputs:
            return None
        try:
            return (self.path / CHAT_TEMPLATE).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise BundleError(f"cannot read {self.path / CHAT_TEMPLATE}: {error}", _REBUILD) from error

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """The bundle in the folder *path*; `BundleError` when it has no valid manifest."""
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
            raise BundleError(f"cannot read {file}: {error}", _REBUILD) from error
        version = raw.get("schema_version") if isinstance(raw, dict) else None
        if version not in READABLE_VERSIONS:
            readable = " and ".join(map(str, READABLE_VERSIONS))
            newer = isinstance(version, int) and version > SCHEMA_VERSION
            raise BundleError(
                f"{file} has schema version {version!r}, this nemotron reads {readable}", _UPDATE if newer else _REBUILD
            )
        return cls(path, _read_manifest(file, text, version))

    def file(self, name: str) -> Path:
        """The file *name* of the bundle; `BundleError` when it is missing, no file, or a link that leads elsewhere."""
        return self._inside(name, stat.S_ISREG, "file")[0]

    def folder(self, name: str) -> Path:
        """The folder *name* of the bundle; `BundleError` as for `file`."""
        return self._inside(name, stat.S_ISDIR, "folder")[0]

    def _inside(self, name: str, has_kind: Callable[[int], bool], kind: str) -> tuple[Path, os.stat_result]:
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
        if not has_kind(status.st_mode):
            raise BundleError(f"{path} is not a {kind}", _REPLACE)
        return path, status

    def problems(self, *, only: Iterable[str] = (), read: Callable[[int], None] | None = None) -> Iterator[BundleError]:
        """Check every file (or *only* those) against its digest; *read* is called with the size of every block."""
        names = set(only) or self.manifest.outputs.keys()
        for name, expected in self.manifest.outputs.items():
            if name not in names:
                continue
            try:
                sha256 = digest(self.file(name), read=read)
            except BundleError as problem:
                yield problem
            except OSError as error:
                yield BundleError(f"cannot read {self.path / name}: {error.strerror}", _REPLACE)
            else:
                if sha256 != expected:
                    yield BundleError(
                        f"{self.path / name} was changed after the build (SHA-256 {sha256[:12]}…, the manifest says "
                        f"{expected[:12]}…)",
                        _REPLACE,
                    )

    def verify(self, *, only: Iterable[str] = ()) -> None:
        """Raise the first of `problems`."""
        for problem in self.problems(only=only):
            raise problem

    def stamp(self) -> str:
        """A digest of the manifest and the files' identities, without their contents. Raises `BundleError`."""
        sha256 = hashlib.sha256(self.manifest.to_json().encode())
        for name in self.manifest.outputs:
            _, status = self._inside(name, stat.S_ISREG, "file")
            identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            sha256.update(repr(identity).encode())
        return sha256.hexdigest()

    def unlisted(self) -> list[str]:
        """Files in the bundle that are not in its manifest, sorted; links are not followed."""
        known = {MANIFEST, *self.manifest.outputs}
        names = (
            (Path(folder) / name).relative_to(self.path).as_posix()
            for folder, folders, files in os.walk(self.path)
            for name in (*files, *(name for name in folders if (Path(folder) / name).is_symlink()))
        )
        return sorted(name for name in names if name not in known)


def bundle_link(repository: Path) -> Path:
    """The path of the bundle in a model repository: beside the adapter of the model that loads its engine."""
    return repository / wire.MODEL_NAME / "1" / "bundle"


def bundle_beside(args: Mapping[str, str]) -> Bundle:
    """The bundle of the model repository in *args*, Triton's arguments for `initialize`; raises `BundleError`.

    `NEMOTRON_BUNDLE` names it for a repository without one, such as `model_repo/` in a checkout, and is ignored
    otherwise: the environment must not change what a written repository serves.
    """
    link = bundle_link(Path(args["model_repository"]).parent)
    if os.path.lexists(link):
        # Resolved now, because a reload may change the link while this bundle is being loaded.
        return Bundle.open(link.resolve())
    if path := os.environ.get(VARIABLE):
        return Bundle.open(Path(path).resolve())
    raise BundleError(
        f"this model repository holds no bundle, and {VARIABLE} names none",
        f"set {VARIABLE} to a bundle's folder, or write a repository with `nemotron model-repo`",
    )


def digest(path: Path, *, read: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of a file, in hex; *read* is called with the size of every block."""
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
        raise BundleError(f"{file} is not a manifest of schema {version}: {where}: {first['msg']}", _REBUILD) from error
    for name in (*manifest.outputs, manifest.engine_file):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BundleError(f"{file} names {name!r}, which lies outside of the bundle", "do not serve it")
    return manifest
