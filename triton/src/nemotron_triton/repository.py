"""A Triton model repository, written from a bundle: real `config.pbtxt` files, thin adapters, the bundle inside.

The repository is self-contained: it needs this package in the server's Python environment and nothing else on disk.
The committed `model_repo/` is one without a bundle, which `NEMOTRON_BUNDLE` names.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from nemotron_client import wire
from nemotron_triton.atomic import atomic_folder
from nemotron_triton.bundle import Bundle, bundle_link
from nemotron_triton.errors import BundleError
from nemotron_triton.serving.settings import Settings

_PACKAGED = Path(__file__).parent / "model_repo"
# In the wheel it is beside this file, in a checkout at the root.
_ADAPTERS = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[3] / "model_repo"
# The settings that the models beside `nemotron` have too.
_LIMITS_OF_TEXT = ("max_prompt_bytes", "max_messages", "max_tools")


def configs(settings: Settings | None = None, *, text_models: bool = True) -> dict[str, model_config_pb2.ModelConfig]:
    """The configuration of every model we serve, by name, with the *settings* that it has as parameters.

    Without *text_models* that of `nemotron` alone.
    """
    models = {wire.MODEL_NAME: _config(wire.MODEL_NAME, wire.INPUTS, wire.OUTPUTS, decoupled=True)}
    if text_models:
        models |= {
            "preprocessing": _config("preprocessing", wire.PREPROCESSING_INPUTS, wire.PREPROCESSING_OUTPUTS),
            "postprocessing": _config("postprocessing", wire.POSTPROCESSING_INPUTS, wire.POSTPROCESSING_OUTPUTS),
        }
    for model, config in models.items():
        for name, value in (settings or Settings()).as_parameters().items():
            if model == wire.MODEL_NAME or name in _LIMITS_OF_TEXT:
                config.parameters[name].string_value = value
    return models


def pbtxt(config: model_config_pb2.ModelConfig) -> str:
    """The text of a `config.pbtxt`, in the repository of a bundle or in `model_repo/`."""
    return (
        "# Generated: by `nemotron model-repo` for a bundle, by ci/model-repo for a checkout of nemotron.\n"
        "# The parameters are limits of serving: set them in a repository of your own. The rest belongs to model.py.\n"
        + text_format.MessageToString(config)
    )


def write_repository(
    bundle: Bundle,
    output: Path,
    settings: Settings | None = None,
    *,
    text_models: bool = True,
    link: bool = False,
    adapters: Mapping[str, Path] = MappingProxyType({}),
) -> None:
    """Write the model repository for *bundle* to *output*, which must not exist; all of it or nothing.

    Without *text_models* it holds `nemotron` alone; with *link* it points to the bundle instead of holding it, and the
    models verify it when they load it. *adapters* are files to use, by model, instead of our own. Raises `BundleError`.
    """
    if not link:
        bundle.verify()
    if os.path.lexists(output):
        raise BundleError(f"{output} exists; remove it or give another --output")
    try:
        with atomic_folder(output) as folder:
            for name, config in configs(settings, text_models=text_models).items():
                version = folder / name / "1"
                version.mkdir(parents=True)
                (folder / name / "config.pbtxt").write_text(pbtxt(config), encoding="utf-8")
                adapter = adapters.get(name) or _ADAPTERS / name / "1" / "model.py"
                (version / "model.py").write_bytes(adapter.read_bytes())
            place = bundle_link(folder)
            if link:
                place.symlink_to(bundle.path.resolve())
            else:
                shutil.copytree(bundle.path, place, copy_function=_link_or_copy)
    except OSError as error:
        raise BundleError(f"cannot write to {output}: {error.strerror or error}") from error


def _config(
    name: str, inputs: Sequence[wire.Tensor], outputs: Sequence[wire.Tensor], *, decoupled: bool = False
) -> model_config_pb2.ModelConfig:
    config = model_config_pb2.ModelConfig(name=name, backend="python", max_batch_size=1)
    for tensor in inputs:
        config.input.add(name=tensor.name, data_type=_type(tensor), dims=tensor.dims, optional=tensor.optional)
    for tensor in outputs:
        config.output.add(name=tensor.name, data_type=_type(tensor), dims=tensor.dims)
    config.instance_group.add(count=1, kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
    config.model_transaction_policy.decoupled = decoupled
    return config


def _type(tensor: wire.Tensor) -> str:
    return "TYPE_STRING" if tensor.dtype == "BYTES" else f"TYPE_{tensor.dtype}"


def _link_or_copy(source: str, target: str) -> None:
    """Engines are gigabytes: share them with the bundle where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
