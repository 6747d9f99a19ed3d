"""What the checks and measurements of a build left for its manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHECKS = "checks.json"
QUALITY = "quality.json"


def write_checks(folder: Path, checks: list[str]) -> None:
    """Keep what was found right, a line each."""
    (folder / CHECKS).write_text(json.dumps(checks, indent=1), encoding="utf-8")


def read_checks(folder: Path) -> list[str]:
    """What `write_checks` kept in *folder*; nothing where it kept nothing."""
    return _read(folder / CHECKS) or []


def write_quality(folder: Path, quality: dict[str, Any]) -> None:
    """Keep what was measured."""
    (folder / QUALITY).write_text(json.dumps(quality, indent=1), encoding="utf-8")


def read_quality(folder: Path) -> dict[str, Any] | None:
    """What `write_quality` kept in *folder*, if it did."""
    return _read(folder / QUALITY) or None


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
