"""The pins of the clients of OpenAI's API that `make test-clients` runs."""

from __future__ import annotations

import json

from conftest import ROOT

CLIENTS = ROOT / "tests/clients"


def test_the_documents_name_the_versions_that_are_tested() -> None:
    table = (ROOT / "docs/openai.md").read_text().partition("## Clients")[2]
    pins = [path.read_text().strip() for path in (CLIENTS / "pins").glob("*.in")]
    packages = json.loads((CLIENTS / "nodejs/package.json").read_text())["dependencies"]

    versions = [*(pin.partition("==")[2] for pin in pins), packages["openai"], packages["ai"]]
    assert len(versions) == 9
    assert [version for version in versions if version not in table] == []


def test_the_lock_of_nodejs_holds_no_addresses_but_hashes() -> None:
    lock = (CLIENTS / "nodejs/package-lock.json").read_text()

    assert '"resolved"' not in lock
    assert lock.count('"integrity": "sha512-') == lock.count('"node_modules/') > 10


def test_every_package_for_python_has_one_exact_version_and_no_address() -> None:
    for path in (CLIENTS / "pins").glob("*.txt"):
        lines = path.read_text().splitlines()

        assert path.with_suffix(".in").read_text().strip().replace("[openai]", "") in lines
        assert all("==" in line.partition(";")[0] for line in lines)
        assert not any("://" in line or line.startswith("-") for line in lines)
