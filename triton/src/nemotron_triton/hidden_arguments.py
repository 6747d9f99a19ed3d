"""Start a program with arguments that no other user can see.

tritonserver takes the values that close some of its calls as arguments only, and everybody on a machine may read
/proc/PID/cmdline. Callers' secrets are not among them, but whoever read one of these values could load code into the
server, or read the requests in its shared memory. So the program is started with a placeholder in place of each such
argument and the value in a variable of its environment, which only its own user may read. It is traced, so that it
stops before its first instruction, and there the pointer to the placeholder is turned to the value: what
/proc/PID/cmdline shows stays the placeholder. The program's children get neither, because the pointer to the variable
is turned away too. Linux, 64 bit, little-endian.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemotron_triton.errors import ServerError

_PR_SET_PDEATHSIG = 1
_PTRACE_TRACEME = 0
_PTRACE_DETACH = 17
# Where /proc/PID/stat has `startstack`, the address of argc, counted behind the program's name.
_STARTSTACK = 25
_WORD = 8
# The first of the environment's variables, which is empty, and the beginning of the names of those that hold values.
_VARIABLE = "NEMOTRON_HIDDEN"
_LONGEST_NAME = 32
_CANNOT_HIDE = "the server's secrets cannot be hidden from its command line"
_REMEDY = "allow ptrace: in a container --cap-add SYS_PTRACE, else /proc/sys/kernel/yama/ptrace_scope at most 1"
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class HidingError(ServerError):
    """Arguments cannot be hidden on this machine; nothing was started."""


@dataclass(frozen=True)
class HiddenArgument:
    """An argument that begins with `shown`, which everybody may see, and goes on with `value`, which nobody may."""

    shown: str
    value: str = field(repr=False)


def start(
    argv: Sequence[str | HiddenArgument], *, environment: Mapping[str, str], **options: Any
) -> subprocess.Popen[str]:
    """Start *argv*, as `subprocess.Popen` does with *options*; it gets SIGTERM when the calling thread ends.

    Raises `OSError` when the program cannot be started, and `HidingError`.
    """
    hidden = {f"{_VARIABLE}_{index}": word for index, word in enumerate(argv) if isinstance(word, HiddenArgument)}
    if hidden and (sys.platform, sys.byteorder, sys.maxsize) != ("linux", "little", 2**63 - 1):
        raise HidingError(f"{_CANNOT_HIDE}: this is no 64-bit little-endian Linux")
    variables = {_VARIABLE: "", **environment} | {name: word.shown + word.value for name, word in hidden.items()}
    try:
        process = subprocess.Popen(  # noqa: S603 - argv is a list, and the caller's to answer for
            [f"{word.shown}(hidden)" if isinstance(word, HiddenArgument) else word for word in argv],
            env=variables if hidden else environment,
            preexec_fn=_traced if hidden else _bound,
            **options,
        )
    except subprocess.SubprocessError as error:
        # Of a function between fork and exec, subprocess reports only that it failed.
        raise HidingError(f"{_CANNOT_HIDE}: ptrace is refused", _REMEDY) from error
    if hidden:
        try:
            _let_go(process, len(argv))
        except (OSError, ValueError, struct.error) as error:
            process.kill()
            process.communicate()
            raise HidingError(f"{_CANNOT_HIDE}: {error}", _REMEDY if isinstance(error, OSError) else "") from error
    return process


def _bound() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _traced() -> None:
    _bound()
    if _libc.ptrace(_PTRACE_TRACEME, 0, None, None):
        raise OSError(errno.EPERM, "ptrace")


def _let_go(process: subprocess.Popen[str], count: int) -> None:
    """Wait until the traced program of *count* arguments is loaded, give it the hidden ones, and let it run."""
    _, status = os.waitpid(process.pid, 0)
    if not os.WIFSTOPPED(status):
        process.returncode = os.waitstatus_to_exitcode(status)
        raise ValueError("the program ended before it began")
    stack = int(Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()[_STARTSTACK])
    with Path(f"/proc/{process.pid}/mem").open("r+b", buffering=0) as memory:
        _substitute(memory.fileno(), stack, count)
    if _libc.ptrace(_PTRACE_DETACH, process.pid, None, None):
        raise OSError(ctypes.get_errno(), "ptrace does not let the program go")


def _substitute(memory: int, stack: int, count: int) -> None:
    """Turn the pointers. *stack* holds argc, the pointers to argv, a null, those to the environment, and a null."""
    if _word(memory, stack) != count:
        raise ValueError("the program is a script, which would show them to everybody")
    arguments = stack + _WORD
    environment = arguments + (count + 1) * _WORD
    slot = environment
    while pointer := _word(memory, slot):
        if match := re.match(rb"%b_(\d+)=" % _VARIABLE.encode(), os.pread(memory, _LONGEST_NAME, pointer)):
            os.pwrite(memory, struct.pack("<Q", pointer + match.end()), arguments + int(match[1]) * _WORD)
            os.pwrite(memory, struct.pack("<Q", _word(memory, environment)), slot)
        slot += _WORD


def _word(memory: int, address: int) -> int:
    return int(struct.unpack("<Q", os.pread(memory, _WORD, address))[0])
