"""The report's sections on ARTE: what teachers wrote, what students preferred, what alignment changed."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from jobs.experiment.arms.arte import ArteArm
from jobs.results.outcome import Outcome, Section
from jobs.systems.arte.align import Alignment, TextPair
from jobs.systems.arte.prefer import Preferred
from training.metrics import read_metrics

SHOWN = 3  # pairs of each kind that are shown with their texts
LONGEST = 300  # characters of a text that is shown


def sections(outcome: Outcome) -> Iterable[Section]:
    """What every path learned from."""
    rows = [
        {"student": path.student, "arm": path.arm.name, "seed": path.seed, **own.figures}
        for (path, _), own in outcome.rounds.items()
        if isinstance(path.arm, ArteArm) and own.figures
    ]
    if rows:
        about = "The questions that a teacher wrote and their rationales, and how many a path learned from."
        yield Section("arte", "What teachers wrote", about, pd.DataFrame(rows))


def of_preferences(preferred: Mapping[str, Preferred]) -> Iterable[Section]:
    """What students preferred, by style, and how well their scores repeat."""
    rows = []
    for label, own in preferred.items():
        table, told = own.table, own.reliability
        known = table[table["score"].notna()]
        tied = known.groupby("question_id")["score"].nunique() == 1
        for style, part in known.groupby("style"):
            rows.append(
                {
                    "preference": label,
                    "style": style,
                    "drafts": len(part),
                    "without score": int((table["style"] == style).sum()) - len(part),
                    "mean score": part["score"].mean(),
                    "standard error of a score": part["error"].mean(),
                    "mean tokens": part["tokens"].mean(),
                    "rank correlation with length": rank_correlation(part),
                    "questions with all scores tied": float(tied.mean()),
                    **{f"reliability {name}": value for name, value in told.items()},
                }
            )
    if rows:
        about = (
            "A draft is a question with a rationale. Its score says how much it helps the student. The "
            "reliability is the rank correlation of scores on two halves of the items, stepped up to all."
        )
        yield Section("arte-preferences", "What students prefer", about, pd.DataFrame(rows))


def rank_correlation(drafts: pd.DataFrame) -> float:
    """Of score and length. NaN if one of them does not vary."""
    ranks = drafts[["score", "tokens"]].rank().to_numpy()
    if len(ranks) < 3 or (ranks.std(axis=0) == 0).any():
        return float("nan")
    return float(np.corrcoef(ranks.T)[0, 1])


def of_alignments(aligned: Mapping[str, Alignment]) -> Iterable[Section]:
    """What pairs the teacher was aligned to, how that went, and some pairs side by side."""
    rows = []
    for label, way in aligned.items():
        kinds = [p.kind for p in way.pairs.every]
        row: dict[str, object] = {
            "alignment": label,
            "pairs of rationales": kinds.count("rationale"),
            "pairs of questions": kinds.count("question"),
            "held out": len(way.pairs.held_out),
            "mean characters, preferred": mean(len(p.chosen) for p in way.pairs.every),
            "mean characters, other": mean(len(p.rejected) for p in way.pairs.every),
            "dropped": ", ".join(f"{n} {why}" for why, n in way.pairs.dropped.items()) or "none",
        }
        steps = [] if way.trained is None else read_metrics(way.trained.directory)
        for name, step in zip(("first step", "last step"), (steps[:1], steps[-1:]), strict=True):
            for metric in ("loss_nats", "margin", "accuracy"):
                if step and metric in step[0]:
                    row[f"{metric.removesuffix('_nats')}, {name}"] = step[0][metric]
        rows.append(row | dict(way.figures))
    if rows:
        about = (
            "Pairs of a preferred and another text, and DPO on them. On held-out pairs an aligned teacher "
            "should find the preferred text likelier than before. After shuffled scores it cannot."
        )
        notes = {
            f"{label}, preferred above, rejected below": told_of(way.pairs.learned)
            for label, way in aligned.items()
            if way.pairs.learned
        }
        yield Section("arte-alignment", "What the teacher was aligned to", about, pd.DataFrame(rows), notes)


def mean(values: Iterable[int]) -> float:
    """The mean of some numbers. NaN if there are none."""
    every = list(values)
    return sum(every) / len(every) if every else float("nan")


def told_of(pairs: Sequence[TextPair]) -> list[str]:
    """Some pairs of each kind as lines: their texts, cut, with their scores."""
    lines = []
    for kind in ("rationale", "question"):
        own = sorted((p for p in pairs if p.kind == kind), key=lambda p: p.id)[:SHOWN]
        for pair in own:
            for text, score in zip((pair.chosen, pair.rejected), pair.scores, strict=True):
                cut = text if len(text) <= LONGEST else f"{text[:LONGEST]} …"
                lines.append(f"{kind}, {pair.task}, {score:.3g}: {cut}")
    return lines
