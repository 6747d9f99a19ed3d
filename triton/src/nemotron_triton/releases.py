"""The order of TensorRT-LLM's releases, and which of them can load compiled engines. Looks at no machine."""

from __future__ import annotations

from packaging.version import InvalidVersion, Version

# trtllm-build, builder.py and _tensorrt_engine went in 1.3.0rc21; 1.3.0rc20 was the last release to have them.
FIRST_WITHOUT_ENGINES = Version("1.3.0rc21")


def release_key(version: str) -> Version | None:
    """What orders releases; None for what is no version.

    A post, development or local build counts as the release it is named after.
    """
    try:
        parsed = Version(version)
    except InvalidVersion:
        return None
    return Version(parsed.base_version + "".join(map(str, parsed.pre or ())))


def same_release(one: str, other: str) -> bool:
    """Whether two versions name the same release, local labels such as `+cu131` aside."""
    return one.partition("+")[0].strip() == other.partition("+")[0].strip()
