"""The order of TensorRT-LLM's releases, and which of them can load compiled engines."""

from __future__ import annotations

from packaging.version import InvalidVersion, Version

# TensorRT-LLM 1.3.0rc20 was the last release with trtllm-build, builder.py and _tensorrt_engine.
FIRST_WITHOUT_ENGINES = Version("1.3.0rc21")


def release_key(version: str) -> Version | None:
    """The key to order releases by; None for text that is no version.

    A post, development or local build counts as the release that it is named after.
    """
    try:
        parsed = Version(version)
    except InvalidVersion:
        return None
    return Version(parsed.base_version + "".join(map(str, parsed.pre or ())))


def same_release(left: str, right: str) -> bool:
    """Whether two versions name the same release, apart from local labels such as `+cu131`."""
    return left.partition("+")[0].strip() == right.partition("+")[0].strip()
