"""Tables of a run: what its teachers gave, what its arms chose of it, what each answer costs a student, and
how long every stage took.
"""

import math
from dataclasses import replace

import pandas as pd

from jobs.experiment.arms.select import choosing_arms
from jobs.experiment.schema import Experiment
from jobs.results.outcome import Outcome, Start
from jobs.run.run import Run
from jobs.run.slices import Sliced
from jobs.stages.score import PoolScores
from selection.costs import CostSettings, compute_cost

SHOWN = 20_000  # answers whose costs are drawn
ENDED = (
    "verified",
    "wrong",
    "unparsed",
    "unreadable_reference",
    "timed_out",
    "failed",
    "empty",
    "duplicate",
)


def teacher_table(start: Start) -> pd.DataFrame:
    """Per teacher: answers, share right, mean answer length, spend, and how its answers ended before
    scoring.
    """
    samples = start.experiment.generate.samples
    sums = pd.concat([_of_teachers(answers, samples) for answers in start.pool.each()]).groupby(level=0).sum()
    told = sums.reindex(start.asked).fillna(0).to_dict("index")
    rows = []
    for teacher in (t for t in start.experiment.teachers if t.name in start.asked):
        own = told[teacher.name]
        rows.append(
            {
                "teacher": teacher.name,
                "family": teacher.family or "",
                "answers": int(own["answers"]),
                "asked again": int(own["asked again"]),
                "answer tokens": int(own["answer tokens"]),
                "right": start.pool.accuracy[teacher.name],
                "mean characters": float(own["characters"] / own["answers"]) if own["answers"] else 0.0,
                "cut off": int(own["cut off"]),
                "usd": float(own["usd"]),
                **{state: int(own[state]) for state in ENDED},
            }
        )
    return pd.DataFrame(rows)


def _of_teachers(answers: pd.DataFrame, samples: int) -> pd.DataFrame:
    """Of a slice's answers, sums by teacher."""
    table = pd.DataFrame(
        {
            "answers": 1,
            "asked again": (answers["sample"] >= samples).astype(int),
            "answer tokens": answers["answer_tokens"],
            "characters": answers["characters"],
            "cut off": (answers["finish"] == "length").astype(int),
            "usd": answers["usd"],
            **{state: (answers["state"] == state).astype(int) for state in ENDED},
        }
    )
    return table.groupby(answers["teacher"].to_numpy()).sum()


def chosen_table(experiment: Experiment, outcome: Outcome) -> pd.DataFrame:
    """Per student, arm, seed, round: share of each teacher among the chosen, and chosen length against the
    pool's, in tokens.
    """
    families = {t.name: t.family or "" for t in experiment.teachers}
    rows = []
    for path, number, scores, chosen in sorted(outcome.choices(), key=lambda i: outcome.paths.index(i[0])):
        shares, pool_mean = _lengths(scores, chosen)
        total = int(shares["chosen"].sum())
        for teacher, own in shares.iterrows():
            rows.append(
                {
                    "student": path.student,
                    "arm": path.arm.name,
                    "seed": path.seed,
                    "round": number,
                    "teacher": teacher,
                    "family": families.get(str(teacher), ""),
                    "share": own["chosen"] / total,
                    "chosen": total,
                    "tokens": float(own["tokens"] / own["chosen"]),
                    "pool tokens": pool_mean,
                }
            )
    return pd.DataFrame(rows)


def _lengths(scores: PoolScores, chosen: Sliced) -> tuple[pd.DataFrame, float]:
    """By teacher, how many answers were chosen and their tokens; and the mean tokens of all scored ones."""
    sums, tokens, scored = [], 0.0, 0
    for number, own in enumerate(scores.each()):
        there = own[own["state"] == "scored"]
        tokens, scored = tokens + float(there["n_answer"].sum()), scored + len(there)
        picked = chosen.read("chosen", number, ["answer_id", "teacher"])
        length = own.set_index("answer_id")["n_answer"].reindex(picked["answer_id"]).to_numpy()
        table = pd.DataFrame({"chosen": 1, "tokens": length}, index=picked.index)
        sums.append(table.groupby(picked["teacher"].to_numpy()).sum())
    return pd.concat(sums).groupby(level=0).sum(), tokens / scored if scored else math.nan


def cost_table(outcome: Outcome) -> pd.DataFrame:
    """SCAS cost of scored answers under every student's first state: of all of them in a run of one slice,
    else of some `SHOWN`, those of the first slices, which are drawn by digest.
    """
    settings = scas_settings(outcome)
    tables: list[pd.DataFrame] = []
    for student in outcome.start.experiment.students:
        scores = outcome.first_scores(student.name)
        if scores is None:  # nobody chooses among answers
            continue
        scored = first_scored(replace(scores, further=()))
        if len(scored) == 0:
            continue
        table = scored[["answer_id", "teacher"]].assign(student=student.name)
        table["scas"] = compute_cost(scored, settings)
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def first_scored(scores: PoolScores) -> pd.DataFrame:
    """The scored answers of the first slices."""
    found = pd.DataFrame()
    for own in scores.each():
        found = pd.concat([found, own[own["state"] == "scored"]], ignore_index=True)
        if len(found) >= SHOWN:
            break
    return found


def scas_settings(outcome: Outcome) -> CostSettings:
    """The settings of the first arm that chooses by SCAS; the paper's where there is none."""
    found = (arm.cost_settings for arm in choosing_arms(outcome.start.experiment.arms) if arm.cost == "scas")
    return next((s for s in found if s is not None), CostSettings())


def timings(run: Run) -> pd.DataFrame:
    """Seconds and counts of each stage when it was made, from the manifests."""
    rows = []
    for (kind, label), stage in run.stages.items():
        manifest = stage.manifest()
        rows.append(
            {
                "stage": f"{kind} {label}",
                "id": stage.id,
                "seconds": manifest["seconds"],
                "counts": manifest["counts"],
            }
        )
    return pd.DataFrame(rows)


def fallbacks(run: Run) -> pd.DataFrame:
    """Shortcuts that a model did not allow, from the manifests: one row for each reason, with the stages it
    was seen in.
    """
    distinct = {stage.id: stage for stage in run.stages.values()}
    rows = [
        {"shortcut": shortcut, "what was done instead, and why": line, "stage": stage.name}
        for stage in distinct.values()
        for shortcut, line in stage.manifest().get("fallbacks", {}).items()
    ]
    table = pd.DataFrame(rows, columns=["shortcut", "what was done instead, and why", "stage"])
    counts = table.groupby(["shortcut", "what was done instead, and why"])["stage"]
    return counts.agg(
        lambda names: ", ".join(f"{n} {name}" for name, n in names.value_counts().items())
    ).reset_index(name="stages")
