"""The engine kinds by name."""

from __future__ import annotations

from typing import Literal

Kind = Literal["tensorrt", "pytorch", "edge", "cpu"]
KINDS: tuple[Kind, ...] = ("tensorrt", "pytorch", "edge", "cpu")
