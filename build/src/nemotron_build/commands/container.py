"""A command inside NVIDIA's container: `docker run` with no network, as the caller's own user. Runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from nemotron_build.commands import versions
from nemotron_build.errors import BuildError


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder of the host, and where the container sees it."""

    host: PurePosixPath
    container: PurePosixPath
    read_only: bool = True

    def __post_init__(self) -> None:
        """Reject what docker would read as something else."""
        for path in (self.host, self.container):
            if not path.is_absolute():
                raise BuildError(f"{path} is not absolute; docker would take it for the name of a volume")
            if ":" in str(path):
                raise BuildError(f"{path} cannot be mounted: docker ends a path at a colon; rename the folder")

    def __str__(self) -> str:
        return f"{self.host}:{self.container}" + (":ro" if self.read_only else "")


def image_reference(image: str = versions.TRITON_IMAGE, *, tag: str | None = None, digest: str | None = None) -> str:
    """*image* with another tag, or pinned to a digest (`sha256:…`), which replaces the tag."""
    if tag is not None and digest is not None:
        raise BuildError("an image is named by its tag or by its digest, not by both")
    if tag is None and digest is None:
        return image
    repository, _, name = image.partition("@")[0].rpartition("/")
    name = "/".join(part for part in (repository, name.partition(":")[0]) if part)
    return f"{name}:{tag}" if tag is not None else f"{name}@{digest}"


def container_argv(
    argv: Sequence[str],
    *,
    mounts: Sequence[Mount],
    user: tuple[int, int],
    image: str = versions.TRITON_IMAGE,
    network: bool = False,
) -> list[str]:
    """*argv* run in *image* as *user* (uid and gid, so that what it writes is the caller's); no *network* unless asked.

    The host's folders must exist: docker makes missing ones, as root. Paths in *argv* are the container's.
    """
    if not argv:
        raise BuildError("there is no command to run in the container")
    uid, gid = user
    return [
        "docker",
        "run",
        "--rm",
        "--gpus",
        "all",
        # A build reads what is mounted and nothing else; a tool that would download fails at once.
        *(() if network else ("--network", "none")),
        # NVIDIA's advice for its PyTorch-based images: shared memory, pinned memory and deep stacks.
        "--ipc=host",
        "--ulimit",
        "memlock=-1",
        "--ulimit",
        "stack=67108864",
        "--user",
        f"{uid}:{gid}",
        # The uid has no entry in the image's passwd: PyTorch's caches ask for a name and a home.
        "--env",
        "USER=nemotron",
        "--env",
        "HOME=/tmp",
        *(word for mount in mounts for word in ("-v", str(mount))),
        image,
        *argv,
    ]
