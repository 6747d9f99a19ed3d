"""The process that each model runs in: tritonserver's Python stub, prepared before anything heavy is imported.

Text tensors are read with a bound: ten million empty strings would keep a model from everybody for a minute. Before a
model sees a text tensor, the Python backend has `deserialize_bytes_tensor` of `triton_python_backend_utils` make an
object of each entry, and then reshapes the array (triton-inference-server/python_backend 0091ce5, src/pb_tensor.cc).
`TextTensor` takes the place of that function, and waits for the shape, which gives the number of entries before any of
them is read.
"""

from __future__ import annotations

import math
import os
import resource
import stat
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nemotron_client import wire
from nemotron_triton.errors import ServerError, ServingError
from nemotron_triton.native_path import printable_path
from nemotron_triton.run_folder import RunFolder
from nemotron_triton.server_lock import SHM, LockError, ServerLock, record

_LENGTH = struct.Struct("<I")


def prepare_stub(pb_utils: Any) -> ServerLock | None:
    """What every model does first when it is loaded, and the lock that this process holds from now on.

    None outside of tritonserver. Raises `ServerError`.
    """
    # The stub puts '' on sys.path. Where tritonserver is started in a checkout, the folders `build` and `triton` would
    # pose as the packages of those names, and PyTorch takes `find_spec("triton")` for a compiler.
    sys.path[:] = [entry for entry in sys.path if entry]
    pb_utils.deserialize_bytes_tensor = TextTensor
    if not Path("/proc/self/exe").readlink().name.startswith("triton_python_backend_stub"):
        return None
    # A core dump would hold prompts; a system whose core_pattern is a program may write one all the same.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    regions = _mapped_regions()
    folder = RunFolder.named_in(os.environ)
    lock = ServerLock.of_folder(folder.path.parent) if folder else ServerLock.of_tritonserver(os.getppid())
    try:
        for region in regions:
            _close_to_others(region)
        # Never closed: the end of this process gives it up.
        record(lock.hold(), *regions)
    except OSError as error:
        raise ServerError(f"{error.filename or lock.path}: {error.strerror}") from error
    except LockError as error:
        raise ServerError(str(error)) from error
    return lock


def _mapped_regions() -> list[Path]:
    """The shared-memory regions between this process and tritonserver, which holds every request and response."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    files = {Path(fields[5]) for line in lines if len(fields := line.split(maxsplit=5)) == 6}
    return sorted(file for file in files if file.parent == SHM)


def _close_to_others(region: Path) -> None:
    """Boost makes regions with mode 0644, whatever the umask is (triton 2.51)."""
    descriptor = os.open(region, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, stat.S_IRUSR | stat.S_IWUSR)
    finally:
        os.close(descriptor)


def load_error(pb_utils: Any, error: ServingError) -> Exception:
    """Triton's own exception with our one line in it; a name that is no text in it would kill the stub."""
    failure: Exception = pb_utils.TritonModelException(printable_path(str(error)))
    return failure


@dataclass(frozen=True)
class TextTensor:
    """The bytes of a text tensor: its entries, each behind its length in 4 bytes."""

    encoded: Any

    def reshape(self, shape: Sequence[int]) -> Any:
        """The entries as an array of bytes objects.

        More than `wire.MAX_VALUES`, which `wire.read` refuses, are not read: they are all empty, and take no memory.
        """
        count = math.prod(shape)
        if count > wire.MAX_VALUES:
            return np.broadcast_to(np.array(b"", dtype=np.object_), shape)
        array = np.empty(count, dtype=np.object_)
        view, offset = memoryview(self.encoded), 0
        for place in range(count):
            (length,) = _LENGTH.unpack_from(view, offset)
            offset += _LENGTH.size + length
            array[place] = bytes(view[offset - length : offset])
        if offset != len(view):
            raise ValueError(f"a text tensor of {count} entries has {len(view)} bytes; they take {offset}")
        return array.reshape(shape)
