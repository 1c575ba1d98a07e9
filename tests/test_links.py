"""Links of the docs, the code and the configuration lead to files and headings that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IN_MARKDOWN = re.compile(r"\]\(([^()\s]+)\)")
IN_COMMENTS = re.compile(r"\b(?:docs/[\w/]+|README|CONTRIBUTING|CHANGELOG)\.md(?:#[\w-]+)?")
FILE_IN_PROSE = re.compile(r"`((?:conf|docs|experiments|notebooks|scar|tests|tools)/[\w./]+\.\w+)`")
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
HISTORY = ("CHANGELOG.md", "docs/results_log.md")
"""They name files by the names that those had on the day."""
MARKDOWN = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
COMMENTED = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *(ROOT / name for name in ("Makefile", "constraints.txt", "pyproject.toml")),
        *(path for folder in ("conf", "experiments", "scar", "tests", "tools") for path in (ROOT / folder).rglob("*")),
    )
    if path.is_file() and path.suffix in ("", ".py", ".sh", ".toml", ".txt", ".yaml")
)


def anchors(markdown: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page: the second of a name ends in -1, and so on."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} (.*)$", FENCE.sub("", markdown), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found[name] = found.get(name, -1) + 1
    return {f"{name}-{number}" if number else name for name, count in found.items() for number in range(count + 1)}


def broken(link: str, folder: Path) -> bool:
    """Whether a relative link from a file in `folder` leads nowhere."""
    name, _, anchor = link.partition("#")
    path = (folder / name).resolve()
    if not path.is_relative_to(ROOT) or not path.exists():
        return True
    return bool(anchor) and anchor not in anchors(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", MARKDOWN)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    links = [link for link in IN_MARKDOWN.findall(text) if "://" not in link]
    links = [f"{Path(page).name}{link}" if link.startswith("#") else link for link in links]
    assert [link for link in links if broken(link, (ROOT / page).parent)] == []


@pytest.mark.parametrize("page", [page for page in MARKDOWN if page not in HISTORY])
def test_every_file_that_a_page_names_exists(page: str) -> None:
    named = FILE_IN_PROSE.findall((ROOT / page).read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_page_that_code_and_configuration_name_exists() -> None:
    links = {
        (path, link)
        for path in COMMENTED
        for link in IN_COMMENTS.findall((ROOT / path).read_text(encoding="utf-8"))
        if path != "tests/test_links.py"
    }
    assert len(links) > 60
    assert sorted((path, link) for path, link in links if broken(link, ROOT)) == []


def test_a_link_that_leads_nowhere_is_seen(tmp_path: Path) -> None:
    docs = ROOT / "docs"
    assert not broken("decisions.md#missing-eos", docs)
    assert not broken("../conf/task", docs)
    assert broken("decisions.md#missing-eos-2", docs)
    assert broken("decision.md", docs)
    assert broken(str(tmp_path), docs)
    assert anchors("# A `b` c\n\n## Same\n\n## Same\n\n```\n# no\n```\n") == {"a-b-c", "same", "same-1"}
