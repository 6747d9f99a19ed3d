"""The model repository: written by protobuf, complete, self-contained, and never over existing files."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from conftest import ROOT
from nemotron_cli import main
from nemotron_client import wire
from nemotron_triton.bundle import Bundle, bundle_beside
from nemotron_triton.errors import BundleError
from nemotron_triton.repository import configs, pbtxt, write_repository

MODELS = {
    "nemotron": (wire.INPUTS, wire.OUTPUTS, True),
    "preprocessing": (wire.PREPROCESSING_INPUTS, wire.PREPROCESSING_OUTPUTS, False),
    "postprocessing": (wire.POSTPROCESSING_INPUTS, wire.POSTPROCESSING_OUTPUTS, False),
}


@pytest.fixture(scope="module")
def repository(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("repository") / "models"
    write_repository(bundle, path)
    return path


@pytest.mark.parametrize("model", MODELS)
def test_config_parses_back_to_what_the_wire_says(repository: Path, model: str) -> None:
    inputs, outputs, decoupled = MODELS[model]
    text = (repository / model / "config.pbtxt").read_text()

    config = text_format.Parse(text, model_config_pb2.ModelConfig())

    assert (config.name, config.backend, config.max_batch_size) == (model, "python", 1)
    assert config.model_transaction_policy.decoupled is decoupled
    assert [(i.name, i.optional, tuple(i.dims)) for i in config.input] == [(t.name, t.optional, t.dims) for t in inputs]
    assert [(o.name, tuple(o.dims)) for o in config.output] == [(t.name, t.dims) for t in outputs]
    assert "${" not in text


def test_repository_holds_the_whole_bundle(repository: Path) -> None:
    inside = Bundle.open(repository / "nemotron" / "1" / "bundle")

    inside.verify()
    assert not any(path.is_symlink() for path in repository.rglob("*"))


def test_the_checkout_has_the_configs_that_are_written() -> None:
    committed = {path.parent.name: path.read_text() for path in (ROOT / "model_repo").glob("*/config.pbtxt")}

    assert committed == {model: pbtxt(config) for model, config in configs().items()}, "run ci/model-repo"


def test_the_models_for_direct_calls_can_be_left_out(bundle: Bundle, tmp_path: Path) -> None:
    command = ["model-repo", str(bundle.path), "--output", str(tmp_path / "models"), "--no-text-models"]

    result = CliRunner().invoke(main, command)

    assert result.output.startswith(f"{tmp_path / 'models'}: nemotron\n")
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["nemotron"]


def test_a_repository_s_own_bundle_wins_over_the_environment(
    bundle: Bundle, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEMOTRON_BUNDLE", str(bundle.path))

    opened = bundle_beside({"model_repository": str(repository / "nemotron")})

    assert opened.path == repository / "nemotron" / "1" / "bundle"


def test_an_existing_folder_is_never_touched(bundle: Bundle, repository: Path) -> None:
    with pytest.raises(BundleError, match="models exists; remove it"):
        write_repository(bundle, repository)


def test_a_place_that_cannot_be_written_is_one_clear_line(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(BundleError, match=r"cannot write to .*Not a directory|cannot write to .*File exists"):
        write_repository(bundle, tmp_path / "file" / "models")
