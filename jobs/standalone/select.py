"""Selecting from scored answers in the authors' layout: each question's minimum, and a draw from a group."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import BadInput
from jobs.files.layouts import read_scores
from jobs.files.selections import Ranking, in_group, ranked, write_manifest, write_selection
from jobs.run.progress import Terminal
from selection.rules import RuleSettings, check_rule, question_generator


@dataclass(frozen=True)
class SelectOptions:
    """The options of `tutelage select`."""

    scores: Path
    out: Path
    score_key: str
    num_groups: int
    selected_group: int
    seed: int
    compat: str


def select_from_files(options: SelectOptions) -> None:
    """Write both selected sets and say how many rows they have.

    Raises:
        BadInput: an option out of its range, a defect of a file.
    """
    check_rule(RuleSettings("groups", options.num_groups, options.selected_group), set())
    if options.compat not in ("ours", "reference"):
        raise BadInput("--compat", options.compat, "ours or reference", "")
    terminal, key = Terminal(), options.score_key
    rows = of_one_text(read_scores(options.scores, key, terminal.say), terminal.say)
    if not rows:
        raise BadInput("no row has a score", options.scores, f"a number under {key} in one row at least", "")
    questions = ranked(rows, key, options.num_groups, options.compat)
    drawn = draw_from_groups(questions, options)
    minimum = options.out / "min_score_selected.jsonl"
    folder = options.out / f"{options.num_groups}_groups"
    group = folder / f"selected_group_{options.selected_group}.jsonl"
    write_selection(minimum, [rows[0] for rows in questions.values()], key)
    for number in range(1, options.num_groups + 1):
        write_selection(folder / f"group_{number}.jsonl", in_group(questions, number), key)
    write_selection(group, drawn, key)
    write_manifest(folder, key, options.num_groups, options.selected_group, options.seed, questions)
    empty = len(questions) - len(drawn)
    note = f"; {empty:,} questions have no answer in group {options.selected_group}" if empty else ""
    terminal.say(
        f"{len(questions):,} questions; wrote {minimum}, {group} ({len(drawn):,} rows) "
        f"and every group beside it{note}"
    )


def of_one_text(rows: Iterable[Mapping[str, Any]], say: Callable[[str], None]) -> list[Mapping[str, Any]]:
    """Rows whose id has the question that it had first; two questions under one id are not compared."""
    first: dict[str, str] = {}
    kept, others = [], list[str]()
    for row in rows:
        text = " ".join(str(row.get("instruction") or "").split())
        if first.setdefault(str(row["id"]), text) == text:
            kept.append(row)
        else:
            others.append(str(row["id"]))
    if others:
        say(f"left out {len(others):,} rows whose id has another question in an earlier row: {others[0]} ...")
    return kept


def draw_from_groups(questions: Ranking, options: SelectOptions) -> list[Mapping[str, Any]]:
    """One row of the selected group of every question that has any there, by the question's own generator."""
    drawn = []
    for question, rows in questions.items():
        members = [row for row in rows if row["group"] == options.selected_group]
        if members:
            drawn.append(members[int(question_generator(options.seed, question).integers(len(members)))])
    return drawn
