"""Descriptions of functions and their parameters, read from docstrings of every style."""

# ruff: noqa: D205, D413, D417 - the code under test reads the docstrings in this file

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import pydantic
import pytest

from nemotron_client.tools import Tool


def google(city: str, days: int = 1, *, hourly: bool = False) -> None:
    """Forecast.

    Args:
        city (str): A name.
        days (int, optional): How many: at most 7. Defaults to 1.

    Returns:
        Nothing.
    """


def sphinx(city: str, days: int = 1, *, hourly: bool = False) -> None:
    """Forecast.

    :param city: A name.
    :param int days: How many: at most 7. Defaults to 1.
    :returns: nothing
    """


def numpy(city: str, days: int = 1, *, hourly: bool = False) -> None:
    """Forecast.

    Parameters
    ----------
    city : str
        A name.
    days : int, optional
        How many: at most 7. Defaults to 1.
    """


def annotated(
    city: Annotated[str, "A name."],
    days: Annotated[int, 5, pydantic.Field(description="How many: at most 7. Defaults to 1.")] = 1,
    *,
    hourly: bool = False,
) -> None:
    """Forecast."""


@pytest.mark.parametrize("function", [google, sphinx, numpy, annotated])
def test_docstrings_of_every_style_describe_parameters(function: Callable[..., Any]) -> None:
    tool = Tool.of(function)

    assert tool.description == "Forecast."
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "A name."},
            "days": {"type": "integer", "description": "How many: at most 7. Defaults to 1.", "default": 1},
            "hourly": {"type": "boolean", "default": False},
        },
        "required": ["city"],
        "additionalProperties": False,
    }


def test_a_broken_docstring_still_has_a_summary() -> None:
    def look(word: str) -> None:
        """Look a word
        up.

        Args:
            word, which has no colon
        """

    assert Tool.of(look).description == "Look a word up."
    assert Tool.of(look).parameters["properties"] == {"word": {"type": "string"}}
