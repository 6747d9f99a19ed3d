"""The order of TensorRT-LLM's releases, and which of them can load compiled engines. Looks at no machine."""

from __future__ import annotations

import re

ReleaseKey = tuple[tuple[int, ...], tuple[int, int]]

# trtllm-build, builder.py and _tensorrt_engine went in 1.3.0rc21; 1.3.0rc20 was the last release to have them.
FIRST_WITHOUT_ENGINES: ReleaseKey = ((1, 3, 0), (0, 21))
_FINAL = (1, 0)
_VERSION = re.compile(
    r"v?(?P<release>\d+(?:\.\d+)*)"
    r"(?:[-_.]?(?P<phase>a|b|rc)[-_.]?(?P<number>\d+))?"
    r"(?:[-_.]?post\d*)?(?:[-_.]?dev\d*)?(?:\+[a-z0-9.]+)?",
    re.IGNORECASE | re.ASCII,
)


def release_key(version: str) -> ReleaseKey | None:
    """What orders releases; None for what is no version.

    A post, development or local build counts as the release it is named after. `packaging` would compare more, but the
    base installation does not have it.
    """
    found = _VERSION.fullmatch(version.strip())
    if not found:
        return None
    release = tuple(int(part) for part in found["release"].split("."))
    release = release + (0,) * (3 - len(release))
    # The phase only matters for 1.3.0, whose boundary is a release candidate.
    if found["phase"] is None:
        candidate = _FINAL
    elif found["phase"].lower() == "rc":
        candidate = (0, int(found["number"]))
    else:
        candidate = (-1, int(found["number"]))
    return release, candidate


def same_release(one: str, other: str) -> bool:
    """Whether two versions name the same release, local labels such as `+cu131` aside."""
    return one.partition("+")[0].strip() == other.partition("+")[0].strip()
