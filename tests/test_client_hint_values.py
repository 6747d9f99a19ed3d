"""Every value of every hint survives its way through JSON."""

from __future__ import annotations

import json
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import PurePath
from typing import Annotated, Any, Literal, Optional, Union
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from hinted import Corner, Level, Node, Size, Stop, read
from nemotron_client.functions.json_values import json_text

LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (str, st.text(max_size=5)),
    (int, st.integers()),
    (bool, st.booleans()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (None, st.none()),
    (Size, st.sampled_from(Size)),
    (Level, st.sampled_from(Level)),
    (Corner, st.sampled_from(Corner)),
    (Literal["a", 2, True, None], st.sampled_from(["a", 2, True, None])),
    (date, st.dates()),
    (time, st.times(timezones=st.none() | st.just(timezone.utc))),
    (datetime, st.datetimes(timezones=st.none() | st.just(timezone(timedelta(hours=-3, minutes=-30))))),
    (UUID, st.uuids()),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (PurePath, st.text("ab./", max_size=5).map(PurePath)),
    (Stop, st.builds(Stop, st.text(max_size=3), st.none() | st.dates(), st.lists(st.text(max_size=3)).map(tuple))),
    (Node, st.recursive(st.builds(Node, st.integers()), lambda inner: st.builds(Node, st.integers(), inner, inner))),
]
KEYS = [leaf for leaf in LEAVES if leaf[0] in (str, Size, date, UUID)]


def of(generic: Any, *arguments: Any) -> Any:
    """A hint that is resolved when it is needed."""
    return generic[arguments if len(arguments) > 1 else arguments[0]]


def wrapped(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Hints made of *inner*; both are pairs of a hint and the strategy of its values."""
    leaves = st.sampled_from(LEAVES)
    return st.one_of(
        inner.map(lambda pair: (of(list, pair[0]), st.lists(pair[1], max_size=3))),
        inner.map(lambda pair: (of(tuple, pair[0], ...), st.lists(pair[1], max_size=3).map(tuple))),
        leaves.map(lambda pair: (of(set, pair[0]), st.sets(pair[1], max_size=3))),
        leaves.map(lambda pair: (of(frozenset, pair[0]), st.frozensets(pair[1], max_size=3))),
        st.tuples(inner, inner).map(lambda two: (of(tuple, two[0][0], two[1][0]), st.tuples(two[0][1], two[1][1]))),
        st.tuples(st.sampled_from(KEYS), inner).map(
            lambda two: (of(dict, two[0][0], two[1][0]), st.dictionaries(two[0][1], two[1][1], max_size=3))
        ),
        inner.map(lambda pair: (of(Optional, pair[0]), st.none() | pair[1])),
        inner.map(
            lambda pair: (
                of(Union, int, of(list, pair[0]), str),
                st.integers() | st.lists(pair[1], max_size=3) | st.text(max_size=3),
            )
        ),
        inner.map(lambda pair: (of(Annotated, pair[0], "a text"), pair[1])),
    )


HINTED = st.recursive(st.sampled_from(LEAVES), wrapped, max_leaves=4)


@given(st.data())
def test_every_value_of_every_hint_survives_the_way_through_json(data: st.DataObject) -> None:
    hint, values = data.draw(HINTED)
    value = data.draw(values)

    result = read(hint, json.loads(json_text(value)))

    assert result == value
    assert type(result) is type(value)
