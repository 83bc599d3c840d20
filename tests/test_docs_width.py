"""Every Markdown file of the repository fits a screen of 110 columns: text, tables and code alike."""

from pathlib import Path

import pytest

from tests.runs import ROOT

WIDTH = 110
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_line_is_wider_than_110_columns(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    wide = [f"line {n}: {len(line)} columns" for n, line in enumerate(lines, 1) if len(line) > WIDTH]
    assert wide == []


def test_readme_fits_on_two_pages_and_every_document_has_its_place_in_the_reading_order() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    order = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    missing = [p.name for p in (ROOT / "docs").glob("*.md") if p.name != "README.md" and p.name not in order]
    assert missing == []
