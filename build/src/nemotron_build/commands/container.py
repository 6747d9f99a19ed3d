"""A command inside NVIDIA's container: `docker run` with no network, as the caller's own user. Runs nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from nemotron_build.commands import versions
from nemotron_build.errors import BuildError, SettingError

_IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/-]*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?")


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder of the host, and where the container sees it."""

    host: PurePosixPath
    container: PurePosixPath
    read_only: bool = True

    def __post_init__(self) -> None:
        for path in (self.host, self.container):
            if not path.is_absolute():
                raise BuildError(f"{path} is not absolute; docker would take it for the name of a volume")
            if ":" in str(path):
                raise BuildError(f"{path} cannot be mounted: docker ends a path at a colon; rename the folder")

    def __str__(self) -> str:
        return f"{self.host}:{self.container}" + (":ro" if self.read_only else "")


def check_image(reference: str) -> None:
    """Refuse what is no image by tag or digest, above all what docker would read as an option."""
    if not _IMAGE.fullmatch(reference):
        raise SettingError(f"--image {reference!r} is no image; give one as {versions.TRITON_IMAGE}, or by its digest")


def remove_argv(name: str) -> list[str]:
    """The command that ends and removes the container *name*, which goes on when only its client dies."""
    return ["docker", "rm", "--force", name]


def container_argv(
    argv: Sequence[str],
    *,
    mounts: Sequence[Mount],
    user: tuple[int, int],
    name: str,
    image: str = versions.TRITON_IMAGE,
    gpus: str = "all",
    network: bool = False,
) -> list[str]:
    """*argv* run in *image* as *user* (uid and gid, so that what it writes is the caller's); no *network* unless asked.

    *gpus* is `all` or `device=` with an index, *name* the container's. The host's folders must exist: docker makes
    missing ones, as root. Paths in *argv* are the container's.
    """
    if not argv:
        raise BuildError("there is no command to run in the container")
    check_image(image)
    uid, gid = user
    command = ["docker", "run", "--rm", "--init", "--name", name, "--gpus", gpus]
    # A build reads what is mounted and nothing else; a tool that would download fails at once.
    command += [] if network else ["--network", "none"]
    # NVIDIA's advice for its PyTorch-based images: shared memory, pinned memory and deep stacks.
    command += ["--ipc=host", "--ulimit", "memlock=-1", "--ulimit", "stack=67108864"]
    # The uid has no entry in the image's passwd: PyTorch's caches ask for a name and a home.
    command += ["--user", f"{uid}:{gid}", "--env", "USER=nemotron", "--env", "HOME=/tmp"]
    command += [word for mount in mounts for word in ("-v", str(mount))]
    return [*command, image, *argv]
