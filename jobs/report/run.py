"""The report: one self-contained HTML page with the verdict, the evidence and where everything ended.

`jobs.report.page` has what it shares with the sweep's page.
"""

from collections.abc import Sequence

import pandas as pd
import yaml

from cluster.storage import Place
from jobs.report.page import PALETTE, as_svg, new_figure, render_page
from jobs.results.summary import ArmResult, Results, format_interval


def render_report(results: Results) -> str:
    """The report as one HTML page."""
    return render_page(
        "report.html.j2",
        {"arms": _arm_chart(results), "chosen": _chosen_chart(results), "costs": _cost_chart(results)},
        r=results,
        interval=lambda i: format_interval(i, results.metric),
        short=lambda i: (
            ""
            if i is None
            else (f"{100 * i.value:.0f} %" if results.metric == "accuracy" else f"{i.value:.3f}")
        ),
        families=sorted({f for a in results.arms for f in a.families}),
        lengths=_lengths(results.chosen),
        by_family=_family_shares(results.chosen),
        ledger_questions=_ledger_table(results.ledger, "question"),
        ledger_answers=_ledger_table(results.ledger, "answer"),
        resolved=yaml.safe_dump(results.experiment, sort_keys=False, allow_unicode=True),
    )


def write_report(results: Results, directory: Place) -> Place:
    """Write `report.html` into a run's directory and return its path."""
    place = directory / "report.html"
    place.write_bytes(render_report(results).encode("utf-8", "replace"))
    return place


def _lengths(chosen: pd.DataFrame) -> pd.DataFrame:
    """Mean chosen length per student and arm in the last round, next to the pool's mean."""
    last = chosen[chosen["round"] == chosen["round"].max()]
    weighted = last.assign(total=last["tokens"] * last["share"])
    grouped = weighted.groupby(["student", "arm", "seed"]).agg(
        tokens=("total", "sum"), pool=("pool tokens", "first"), chosen=("chosen", "first")
    )
    mean = grouped.groupby(level=["student", "arm"]).mean().reset_index()
    return mean.rename(
        columns={"tokens": "chosen: mean tokens", "pool": "pool: mean tokens", "chosen": "answers chosen"}
    )


def _family_shares(chosen: pd.DataFrame) -> pd.DataFrame:
    """Share of each teacher family among the chosen answers of the last round; empty when no teacher names a
    family.
    """
    last = chosen[(chosen["round"] == chosen["round"].max()) & (chosen["family"] != "")]
    if len(last) == 0:
        return pd.DataFrame()
    seeds = chosen["seed"].nunique()
    wide = last.groupby(["student", "arm", "family"])["share"].sum().div(seeds).unstack(fill_value=0)
    return wide.reset_index()


def _ledger_table(ledger: pd.DataFrame, kind: str) -> pd.DataFrame:
    """States in rows, student and arm in columns (first seed, last round), with the total."""
    own = ledger[(ledger["kind"] == kind) & (ledger["round"] == ledger["round"].max())]
    own = own[own["path"].str.endswith("seed 0")]
    wide = own.pivot_table(index="state", columns="path", values="count", aggfunc="sum", fill_value=0)
    wide.columns = [str(c).removesuffix(" seed 0") for c in wide.columns]
    wide.loc["total"] = wide.sum()
    return wide.astype(int).reset_index()


def _arm_chart(results: Results) -> str:
    """Every student's arms after the last round as points with intervals, the untrained student as a line."""
    students = list(dict.fromkeys(a.student for a in results.arms))
    arms = list(dict.fromkeys(a.arm for a in results.arms))
    last = max(a.round for a in results.arms)
    scale = 100.0 if results.metric == "accuracy" else 1.0
    figure, axis = new_figure(9, 0.9 + 0.42 * len(students) * (len(arms) + 0.6))
    ticks, labels, y = [], [], 0.0
    for student in students:
        start = next(b for b in results.before if b.student == student)
        axis.plot(
            [scale * start.value.value] * 2, [y + 0.5, y - len(arms) + 0.5], color="#999", lw=1, ls="--"
        )
        for k, arm in enumerate(arms):
            a: ArmResult = next(
                x for x in results.arms if (x.student, x.arm, x.round) == (student, arm, last)
            )
            spread = [[scale * (a.value.value - a.value.low)], [scale * (a.value.high - a.value.value)]]
            axis.errorbar(
                scale * a.value.value, y, xerr=spread, fmt="o", color=PALETTE[k % len(PALETTE)], capsize=3
            )
            ticks.append(y)
            labels.append(f"{student} · {arm}")
            y -= 1
        y -= 0.6
    axis.set_yticks(ticks, labels)
    unit = (
        "accuracy on held-out questions, %"
        if results.metric == "accuracy"
        else "minus loss, nats per answer token"
    )
    axis.set_xlabel(f"{unit} (95 % interval; dashed: before training)")
    axis.grid(axis="x", color="#e6e9ed")
    axis.set_axisbelow(True)
    return as_svg(figure, "Accuracy per student and arm with 95 % intervals")


def _chosen_chart(results: Results) -> str:
    """Stacked shares of teachers among the chosen answers, per student, arm and round,
    averaged over seeds.
    """
    shares = (
        results.chosen.groupby(["student", "arm", "round", "teacher"], sort=False)["share"]
        .sum()
        .unstack(fill_value=0)
    )
    seeds = results.chosen.groupby(["student", "arm", "round"], sort=False)["seed"].nunique()
    shares = shares.div(seeds, axis=0)
    teachers = [t["name"] for t in results.experiment["teachers"] if t["name"] in shares.columns]
    figure, axis = new_figure(9, 1.0 + 0.34 * len(shares))
    labels = [f"{s} · {a} · round {n}" for s, a, n in shares.index]
    left = pd.Series(0.0, index=shares.index)
    for k, teacher in enumerate(teachers):
        axis.barh(
            labels,
            100 * shares[teacher],
            left=100 * left,
            color=PALETTE[k % len(PALETTE)],
            label=teacher,
            height=0.72,
        )
        left += shares[teacher]
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.set_xlabel("share of the chosen answers, %")
    axis.legend(ncols=min(6, len(teachers)), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return as_svg(figure, "Share of each teacher among the chosen answers")


def _cost_chart(results: Results) -> str:
    """SCAS per teacher and student as boxes."""
    if len(results.costs) == 0:
        return "<p class='soft'>no answer was scored</p>"
    students: Sequence[str] = list(dict.fromkeys(results.costs["student"]))
    teachers = sorted(set(results.costs["teacher"]))
    figure, axis = new_figure(9, 1.0 + 0.3 * len(students) * len(teachers))
    data, labels = [], []
    for student in students:
        for teacher in teachers:
            own = results.costs[
                (results.costs["student"] == student) & (results.costs["teacher"] == teacher)
            ]["scas"]
            if len(own):
                data.append(own.to_numpy())
                labels.append(f"{student} · {teacher} ({len(own)})")
    axis.boxplot(
        data,
        orientation="horizontal",
        whis=(5, 95),
        showfliers=False,
        tick_labels=labels,
        medianprops={"color": PALETTE[1]},
    )
    axis.invert_yaxis()
    axis.set_xlabel(f"SCAS cost (lambda {results.scas_lambda:g}), nats squared")
    axis.grid(axis="x", color="#e6e9ed")
    return as_svg(figure, "SCAS cost per student and teacher")
