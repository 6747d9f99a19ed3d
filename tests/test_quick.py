"""`make test-quick` starts no tritonserver: a test that would has the mark `server`, or fails."""

from __future__ import annotations

import pytest

from marks import UnmarkedServer
from nemotron_triton.bundle import Bundle
from running import running
from served import nemotron

MARK_IT = "test_a_test_that_forgets_its_mark_starts_no_server starts a server; mark it with @pytest.mark.server"


def test_a_test_that_forgets_its_mark_starts_no_server(bundle: Bundle) -> None:
    with pytest.raises(UnmarkedServer, match=rf"{MARK_IT}: \S+tritonserver "), running(bundle):
        pass
    with pytest.raises(UnmarkedServer, match=rf"{MARK_IT}: .*nemotron_cli serve /bundle"):
        nemotron("serve", "/bundle")
