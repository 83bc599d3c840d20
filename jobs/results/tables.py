"""Tables of a run: what its teachers gave, what its arms chose of it, what each answer costs a student, and
how long every stage took.
"""

import pandas as pd

from jobs.experiment.schema import Experiment
from jobs.results.outcome import Outcome, Start
from jobs.run.run import Run
from selection.costs import CostSettings, compute_cost

ENDED = ("verified", "wrong", "unparsed", "timed_out", "failed", "empty", "duplicate")


def teacher_table(start: Start) -> pd.DataFrame:
    """Per teacher: answers, share right, mean answer length, spend, and how its answers ended before
    scoring.
    """
    answers, samples = start.pool.answers, start.experiment.generate.samples
    rows = []
    for teacher in start.experiment.teachers:
        own = answers[answers["teacher"] == teacher.name]
        states = own["state"].value_counts()
        rows.append(
            {
                "teacher": teacher.name,
                "family": teacher.family or "",
                "answers": len(own),
                "asked again": int((own["sample"] >= samples).sum()),
                "answer tokens": int(own["answer_tokens"].sum()),
                "right": start.pool.accuracy[teacher.name],
                "mean characters": float(own["text"].str.len().mean()) if len(own) else 0.0,
                "cut off": int((own["finish"] == "length").sum()),
                "usd": float(own["usd"].sum()),
                **{state: int(states.get(state, 0)) for state in ENDED},
            }
        )
    return pd.DataFrame(rows)


def chosen_table(experiment: Experiment, outcome: Outcome) -> pd.DataFrame:
    """Per student, arm, seed, round: share of each teacher among the chosen, and chosen length against the
    pool's, in tokens.
    """
    families = {t.name: t.family or "" for t in experiment.teachers}
    rows = []
    for (path, number), stage in sorted(outcome.chosen.items(), key=lambda i: outcome.paths.index(i[0][0])):
        scored = outcome.scores[path, number].read().set_index("answer_id")
        lengths = scored["n_answer"]
        pool_mean = float(lengths[scored["state"] == "scored"].mean())
        chosen = stage.read("chosen")
        for teacher, own in chosen.groupby("teacher"):
            rows.append(
                {
                    "student": path.student,
                    "arm": path.arm.name,
                    "seed": path.seed,
                    "round": number,
                    "teacher": teacher,
                    "family": families.get(str(teacher), ""),
                    "share": len(own) / len(chosen),
                    "chosen": len(chosen),
                    "tokens": float(lengths[chosen["answer_id"]].mean()),
                    "pool tokens": pool_mean,
                }
            )
    return pd.DataFrame(rows)


def cost_table(outcome: Outcome) -> pd.DataFrame:
    """SCAS cost of every scored answer under every student's first state."""
    settings = scas_settings(outcome)
    tables: list[pd.DataFrame] = []
    for path in outcome.paths:
        stage = outcome.scores[path, 1]
        if any(t["student"].iloc[0] == path.student for t in tables):
            continue
        scored = stage.read()
        scored = scored[scored["state"] == "scored"].reset_index(drop=True)
        if len(scored) == 0:
            continue
        table = scored[["answer_id", "teacher"]].assign(student=path.student)
        table["scas"] = compute_cost(scored, settings)
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def scas_settings(outcome: Outcome) -> CostSettings:
    """The settings of the first arm that chooses by SCAS; the paper's where there is none."""
    found = (p.arm.cost_settings for p in outcome.paths if p.arm.cost == "scas")
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
