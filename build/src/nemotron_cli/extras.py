"""The packages that an installation without extras lacks, and what to say where one is missing."""

from __future__ import annotations

import importlib.util
import sys

import click

from nemotron_triton.extras import how_to_install

# By package, the extra that brings it.
_EXTRAS = {
    **dict.fromkeys(("gguf", "ml_dtypes", "safetensors", "xllamacpp"), "cpu"),
    **dict.fromkeys(("jinja2", "pydantic", "rich", "tokenizers", "yaml"), "serve"),
    "pynvml": "build",
    **dict.fromkeys(("anyio", "httptools", "msgspec", "prometheus_client", "starlette", "uvicorn", "uvloop"), "openai"),
}


def check_installed(extra: str) -> None:
    """`ClickException` where a package of *extra* is missing; nothing is imported."""
    for package, brought_by in _EXTRAS.items():
        if brought_by == extra and not importlib.util.find_spec(package):
            raise _lacking(package, extra)


def missing(error: ModuleNotFoundError) -> click.ClickException:
    """What to say of *error*, which is raised again where no extra has the package."""
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    if extra is None:
        raise error
    return _lacking(package, extra)


def _lacking(package: str, extra: str) -> click.ClickException:
    if sys.version_info >= (3, 13) and extra != "openai":
        return click.ClickException(
            f"this command needs {package} and Python 3.10 to 3.12: Triton's Python stub needs numpy<2, "
            f"which has no wheels for Python {sys.version_info.major}.{sys.version_info.minor}"
        )
    return click.ClickException(f"this command needs {package}: {how_to_install(extra)}")
