"""The real parts the tests share: the demo checkpoint, one bundle built from it, one tritonserver that serves it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import marks
from checkpoints import write_checkpoint
from faulty import faulty_server
from nemotron_build.engine import EngineSpec, build
from nemotron_client import Client
from nemotron_triton.bundle import Bundle
from nemotron_triton.server import ServeOptions
from running import Running, running

ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "build" / "demo" / "checkpoint"

# `python -m pytest` puts the root on sys.path, where the folders `build` and `triton` would pose as the packages of
# those names.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

# A suite that is started in the background ignores Ctrl-C; the programs that it starts must not.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: a busy machine must not fail a test. docs/developing.md says how the nightly size is run.
settings.register_profile("suite", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=25)
settings.register_profile("nightly", deadline=None, max_examples=20_000)
settings.load_profile("suite")


def pytest_configure() -> None:
    marks.watch()


def pytest_itemcollected(item: pytest.Item) -> None:
    marks.mark(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    with marks.begun(item):
        yield


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """The committed demo checkpoint."""
    return CHECKPOINT


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of the demo checkpoint, as `--gpu cpu` makes it by default."""
    path = tmp_path_factory.mktemp("bundle") / "demo"
    build(EngineSpec(checkpoint=CHECKPOINT, gpu="cpu"), path)
    return Bundle.open(path)


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Bundle:
    """A model with random weights: it generates broken characters, control tokens, every kind of id."""
    folder = tmp_path_factory.mktemp("random")
    write_checkpoint(folder / "checkpoint", checkpoint)
    build(
        EngineSpec(checkpoint=folder / "checkpoint", gpu="cpu", precision="bf16", max_batch_size=2), folder / "bundle"
    )
    return Bundle.open(folder / "bundle")


@pytest.fixture(scope="session")
def served(bundle: Bundle) -> Iterator[ServeOptions]:
    """A real tritonserver with the demo bundle."""
    with running(bundle) as server:
        yield server.options


@pytest.fixture
def client(served: ServeOptions) -> Iterator[Client]:
    """A client of the served demo model."""
    with Client(f"127.0.0.1:{served.grpc_port}", timeout_s=60) as client:
        yield client


@pytest.fixture(scope="session")
def faulty(bundle: Bundle) -> Iterator[Running]:
    """A real tritonserver whose engine fails as a request's seed says."""
    with faulty_server(bundle) as server:
        yield server
