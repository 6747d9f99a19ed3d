"""The versions every command is written for, and which TensorRT-LLM still has engines. Looks at no machine."""

from __future__ import annotations

from nemotron_build.errors import BuildError
from nemotron_triton.releases import FIRST_WITHOUT_ENGINES, release_key

# The last general release with `trtllm-build`, and what it pins: its package metadata and NVIDIA's image matrix.
TENSORRT_LLM = "1.2.1"
TENSORRT = "10.14.1.48"
CUDA = "13.1"
# The newest image that holds it; 26.04 to 26.06 hold the same versions.
TRITON_IMAGE = "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"

# What Edge-LLM's wheel was qualified with (its `_native/dependencies.py`), on Jetson Thor.
EDGE_LLM = "0.11.0"
EDGE_TENSORRT = "10.16.0.72"


def has_engines(version: str) -> bool:
    """Whether this release of TensorRT-LLM can build and load compiled engines."""
    key = release_key(version)
    if key is None:
        raise BuildError(f"{version!r} is no version of TensorRT-LLM that can be read; 1.2.1 and 1.3.0rc20 are")
    return key < FIRST_WITHOUT_ENGINES
