"""The versions every command is written for, and which TensorRT-LLM still has engines. Looks at no machine."""

from __future__ import annotations

import re

from nemotron_build.errors import BuildError

# The last general release with `trtllm-build`, and what it pins: its package metadata and NVIDIA's image matrix.
TENSORRT_LLM = "1.2.1"
TENSORRT = "10.14.1.48"
CUDA = "13.1"
# The newest image that holds it; 26.04 to 26.06 hold the same versions.
TRITON_IMAGE = "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"

# What Edge-LLM's wheel was qualified with (its `_native/dependencies.py`), on Jetson Thor.
EDGE_LLM = "0.11.0"
EDGE_TENSORRT = "10.16.0.72"

# trtllm-build, builder.py and _tensorrt_engine went in 1.3.0rc21; 1.3.0rc20 was the last release to have them.
_FIRST_WITHOUT_ENGINES = (1, 3, 0), (0, 21)
_FINAL = (1, 0)
_VERSION = re.compile(
    r"v?(?P<release>\d+(?:\.\d+)*)"
    r"(?:[-_.]?(?P<phase>a|b|rc)[-_.]?(?P<number>\d+))?"
    r"(?:[-_.]?post\d*)?(?:[-_.]?dev\d*)?(?:\+[a-z0-9.]+)?",
    re.IGNORECASE,
)


def has_engines(version: str) -> bool:
    """Whether this release of TensorRT-LLM can build and load compiled engines.

    A post, development or local build counts as the release it is named after. `packaging` would compare more, but the
    base installation does not have it.
    """
    found = _VERSION.fullmatch(version.strip())
    if not found:
        raise BuildError(f"{version!r} is no version of TensorRT-LLM that can be read; 1.2.1 and 1.3.0rc20 are")
    release = tuple(int(part) for part in found["release"].split("."))
    # The phase only matters for 1.3.0, whose boundary is a release candidate.
    release = release + (0,) * (3 - len(release))
    if found["phase"] is None:
        candidate = _FINAL
    elif found["phase"].lower() == "rc":
        candidate = (0, int(found["number"]))
    else:
        candidate = (-1, int(found["number"]))
    return (release, candidate) < _FIRST_WITHOUT_ENGINES
