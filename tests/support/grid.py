"""One test for all cells of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest


def every(cells: Iterable[tuple[object, ...]]) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Turn the test of a cell into one test of all cells, which fails with the reason of every cell that fails."""

    def of_all(check: Callable[..., None]) -> Callable[[], None]:
        def test() -> None:
            failures = []
            for cell in cells:
                try:
                    check(*cell)
                # The failures of pytest itself, such as "DID NOT RAISE", are no Exception.
                except (Exception, pytest.fail.Exception) as failure:
                    failures.append(f"{cell}: {type(failure).__name__}: {failure}")
            assert not failures, "\n".join(failures)

        # Not functools.wraps: pytest would ask for the arguments of a cell.
        test.__name__, test.__doc__, test.__module__ = check.__name__, check.__doc__, check.__module__
        return test

    return of_all
