"""The documents: every link and path in them resolves, and the front page stays short."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT

_LINK = re.compile(r"\]\(([^)\s]+)\)")
# A path of the repository in backticks, such as `ci/bench`; NAME in one is for the reader to fill in.
_PATH = re.compile(r"`((?:build|ci|clients|docs|model_repo|tests|triton)/[\w./-]*)`")


def pages() -> list[Path]:
    """Every Markdown file under version control."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [ROOT / name for name in names if (ROOT / name).exists()]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_path_leads_somewhere(page: Path) -> None:
    text = page.read_text()

    links = [link for link in _LINK.findall(text) if "://" not in link]
    broken = [link for link in links if not leads_somewhere(page, link)]
    broken += [path for path in _PATH.findall(text) if "NAME" not in path and not (ROOT / path).exists()]

    assert broken == []


@pytest.mark.parametrize("link", ["no-such-page.md", "planning.md#no-such-heading", "../no-such-folder"])
def test_a_link_that_leads_nowhere_is_found(link: str) -> None:
    assert not leads_somewhere(ROOT / "docs" / "building.md", link)


def test_the_front_page_stays_short() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()

    assert len(lines) <= 130


def test_the_front_page_leads_to_every_page() -> None:
    front = (ROOT / "README.md").read_text()

    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in front] == []


def leads_somewhere(page: Path, link: str) -> bool:
    """Whether *link* in *page* names a file, and a heading of it where it has a fragment."""
    name, _, fragment = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.exists():
        return False
    return not fragment or fragment in {anchor(line) for line in target.read_text().splitlines() if line[:1] == "#"}


def anchor(heading: str) -> str:
    """The fragment under which a heading is found, as GitHub and GitLab make it."""
    words = heading.lstrip("#").strip().lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
