"""Links of the code, the configuration and the docs to headings of docs/decisions.md lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"decisions\.md#([\w-]+)")


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_linked_decision_has_a_heading() -> None:
    text = (ROOT / "docs/decisions.md").read_text(encoding="utf-8")
    anchors = {anchor(heading) for heading in re.findall(r"^## (.*)$", text, re.MULTILINE)}
    files = [path for folder in ("scar", "conf", "docs") for path in (ROOT / folder).rglob("*") if path.is_file()]
    files = [path for path in files if path.suffix in (".py", ".yaml", ".md")]
    linked = {(path.name, name) for path in files for name in LINK.findall(path.read_text(encoding="utf-8"))}
    linked |= {("decisions.md", name) for name in re.findall(r"\]\(#([\w-]+)\)", text)}
    assert len(linked) > 30
    assert {(file, name) for file, name in linked if name not in anchors} == set()
