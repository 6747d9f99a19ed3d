"""A bundle is served as it was built and where it was built for, or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.start import start_engine
from nemotron_triton.errors import BundleError, EngineError

# Written by `nemotron build-engine` at commit d197688, of a small Llama.
SCHEMA_2 = Path(__file__).parent / "data" / "manifest-schema-2.json"


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may damage."""
    return Path(shutil.copytree(bundle.path, tmp_path / "bundle"))


def edit_manifest(path: Path, **changes: Any) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | changes))


def test_an_untouched_bundle_verifies(copy: Path) -> None:
    Bundle.open(copy).verify()


@pytest.mark.parametrize("name", ["engine/model.gguf", "tokenizer/tokenizer.json"])
def test_one_changed_byte_is_found(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)

    with pytest.raises(BundleError, match=rf"{name} was changed after the build .* build or copy the bundle again"):
        Bundle.open(copy).verify()


def test_a_missing_file_is_found(copy: Path) -> None:
    (copy / "engine" / "model.gguf").unlink()

    with pytest.raises(BundleError, match=r"lacks engine/model.gguf"):
        Bundle.open(copy).verify()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"schema_version": 99}, "schema version 99, this nemotron reads 2 and 3; a newer nemotron made it"),
        ({"memory": None}, "not a manifest of schema 3: memory: "),
        ({"memory": None, "schema_version": 2}, "not a manifest of schema 2: memory: "),
        ({"surprise": 1}, "surprise"),
        ({"engine_file": "../../etc/passwd"}, "lies outside of the bundle"),
        ({"outputs": {"/etc/passwd": "00" * 32}}, "lies outside of the bundle"),
        ({"outputs": 3}, "not a manifest"),
        ({"engine_file": 3}, "not a manifest"),
        ({"kind": "onnx"}, "kind: Input should be 'cpu', 'tensorrt', 'pytorch' or 'edge'; build the bundle again"),
        ({"requires_sm": "89"}, "requires_sm: Input should be a valid integer"),
    ],
)
def test_a_manifest_that_is_not_ours_is_refused(copy: Path, changes: dict[str, Any], complaint: str) -> None:
    edit_manifest(copy, **changes)

    with pytest.raises(BundleError, match=complaint):
        Bundle.open(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_a_manifest_that_is_not_json_is_refused(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)

    with pytest.raises(BundleError, match="build the bundle again"):
        Bundle.open(copy)


def test_a_manifest_of_schema_2_is_read_as_it_was_written(tmp_path: Path) -> None:
    shutil.copy(SCHEMA_2, tmp_path / "manifest.json")

    manifest = Bundle.open(tmp_path).manifest

    assert (manifest.schema_version, manifest.requires_sm) == (2, None)
    assert (manifest.kind, manifest.gpu, manifest.sm, manifest.precision) == ("pytorch", "a10g", 86, "bf16")


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="make one with `nemotron build-engine`"):
        Bundle.open(tmp_path)


def test_an_engine_file_that_llama_cpp_refuses_is_one_clear_line(copy: Path) -> None:
    (copy / "engine" / "model.gguf").write_bytes(b"GGUF" + b"\0" * 64)
    bundle = Bundle.open(copy)

    with pytest.raises(EngineError, match=r"llama.cpp cannot load .*model.gguf"):
        start_engine(bundle, TokenCodec(bundle.tokenizer_path))
