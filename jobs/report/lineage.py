"""The lineage of questions on pages. `jobs.results.lineage` traces it, and a script in the page shows it as
text.

The report holds the first questions. If all of them would make it too large, the others are in pages beside
it. The report only links to those, because a page opened from disk cannot read other files.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cluster.storage import Place
from jobs.report.page import render_page
from jobs.results.lineage import Lineage, Traced

PAGE_BYTES = 6_000_000  # of data in one page
SCRIPT = (Path(__file__).parent / "lineage.js").read_text(encoding="utf-8")


def in_pages(lineage: Lineage, most: int = PAGE_BYTES) -> list[list[dict[str, Any]]]:
    """Divide the traced questions into pages, as plain values. Every page has at least one question."""
    pages: list[list[dict[str, Any]]] = [[]]
    size = 0
    for question in lineage.questions:
        plain = plain_question(question)
        length = len(json.dumps(plain))
        if pages[-1] and size + length > most:
            pages.append([])
            size = 0
        pages[-1].append(plain)
        size += length
    return pages


def plain_question(question: Traced) -> dict[str, Any]:
    """A question in the form that the script reads. A choice refers to an answer by its index."""
    place = {answer.id: k for k, answer in enumerate(question.answers)}
    chosen = {k: [(place[a], *rest) for a, *rest in taken] for k, taken in question.chosen.items()}
    answers = [
        asdict(answer) | {"costs": [None if c is None else float(f"{c:.6g}") for c in answer.costs]}
        for answer in question.answers
    ]
    return {
        "id": question.id,
        "family": question.family,
        "turns": question.turns,
        "references": question.references,
        "answers": answers,
        "chosen": chosen,
    }


def data_of(lineage: Lineage, questions: Sequence[dict[str, Any]], teachers: Sequence[str]) -> Markup:
    """One page's data as JSON. `<` is escaped, so that no text can end the script element."""
    found = {
        "costs": [asdict(c) for c in lineage.costs],
        "paths": [asdict(p) for p in lineage.paths],
        "rounds": max((p.round for p in lineage.paths), default=1),
        "teachers": list(teachers),
        "questions": list(questions),
    }
    text = json.dumps(finite(found), ensure_ascii=True, separators=(",", ":"), default=str, allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))  # made here, and still valid JSON


def finite(value: Any) -> Any:
    """Plain values, with infinite numbers and NaN as texts, because JSON cannot hold them."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: finite(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [finite(own) for own in value]
    return value


def page_name(number: int) -> str:
    """The file name of a page. Page 0 is the report."""
    return "report.html" if number == 0 else f"lineage-{number:03d}.html"


def section_of(
    lineage: Lineage, pages: Sequence[Sequence[dict[str, Any]]], number: int, teachers: Sequence[str]
) -> dict[str, Any]:
    """The values that the section's template needs for one page."""
    return {
        "count": len(pages),
        "pages": [page_name(k) for k in range(len(pages))],
        "here": page_name(number),
        "told": f"{len(lineage.questions):,}",
        "left_out": f"{lineage.left_out:,}" if lineage.left_out else "",
        "data": data_of(lineage, pages[number], teachers),
    }


def further_pages(
    name: str, lineage: Lineage, pages: Sequence[Sequence[dict[str, Any]]], teachers: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """The pages besides the report, each as file name and HTML."""
    for number in range(1, len(pages)):
        content = section_of(lineage, pages, number, teachers)
        html = render_page(
            "lineage.html.j2", {}, SCRIPT, name=name, number=number, back="report.html#lineage", **content
        )
        yield page_name(number), html


def remove_stale(directory: Place, count: int) -> None:
    """Remove surplus pages that an earlier report wrote."""
    kept = {page_name(k) for k in range(count)}
    for place in directory.glob("lineage-*.html"):
        if place.name not in kept:
            place.unlink()
