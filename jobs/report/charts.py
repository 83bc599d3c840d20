"""The report's charts, as SVG. The report shows each chart's numbers in a table beside it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from jobs.report.page import PALETTE, as_svg, new_figure
from jobs.results.judged import ArmResult
from jobs.results.outcome import Curves
from jobs.results.summary import Results

MOST_BOXES = 60  # of the chart of costs
MOST_PANELS = 6  # of the charts of compatibility


def arm_chart(results: Results) -> str:
    """For every student a chart of its arms after the last round: points with intervals, and a line for the
    untrained student.
    """
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
            a: ArmResult | None = next(
                (x for x in results.arms if (x.student, x.arm, x.round) == (student, arm, last)), None
            )
            if a is None:  # the path ended before
                continue
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


def chosen_chart(results: Results) -> str:
    """Stacked bars: the teachers' shares of the chosen answers, for each student, arm and round. They are
    means over seeds.
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


def cost_chart(results: Results) -> str:
    """Box plots of SCAS for each teacher and student."""
    if len(results.costs) == 0:
        return "<p class='soft'>no answer was scored</p>"
    students: Sequence[str] = list(dict.fromkeys(results.costs["student"]))
    teachers = sorted(set(results.costs["teacher"]))
    if len(students) * len(teachers) > MOST_BOXES:
        return (
            "<p class='soft'>too many pairs of a student and a teacher for a chart; the tables have them</p>"
        )
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


def compatibility_chart(wins: pd.DataFrame) -> str:
    """Teachers' accuracy against the mean cost of their right answers, for each student."""
    if not len(wins):
        return ""
    import matplotlib.pyplot as plt

    students = list(dict.fromkeys(wins["student"]))[:MOST_PANELS]
    columns = min(3, len(students))
    rows = -(-len(students) // columns)
    figure, _ = new_figure(9.5, 2.6 * rows)
    figure.clear()
    panels = figure.subplots(rows, columns, squeeze=False)
    named = wins["teacher"].nunique() <= 12
    for panel, student in zip(panels.flat, students, strict=False):
        own = wins[(wins["student"] == student) & np.isfinite(wins["mean cost"])]
        panel.scatter(100 * own["accuracy"], own["mean cost"], s=14, color=PALETTE[0])
        for _, row in own.iterrows() if named else ():
            at = (100 * row["accuracy"], row["mean cost"])
            panel.annotate(row["teacher"], at, xytext=(3, 3), textcoords="offset points", fontsize=7)
        panel.set_title(student, fontsize=9, loc="left")
        panel.tick_params(labelsize=7)
        panel.set_xlabel("right, %", fontsize=8)
        panel.set_ylabel("mean cost", fontsize=8)
    for panel in list(panels.flat)[len(students) :]:
        panel.set_visible(False)
    svg = as_svg(figure, "Strength of teachers against the mean cost of their right answers")
    plt.close(figure)
    return svg


def curves_chart(curves: Sequence[Curves], title: str) -> str:
    """The points of each line with their intervals, joined in the order of x, with a panel for each x."""
    figure, _ = new_figure(9 if len(curves) == 1 else 12, 4)
    figure.clear()
    panels = list(figure.subplots(1, len(curves), squeeze=False, sharey=True).flat)
    names = list(dict.fromkeys(name for own in curves for name in own.lines))
    for panel, told in zip(panels, curves, strict=True):
        for name, points in told.lines.items():
            own, k = sorted(points, key=lambda p: p.x), names.index(name)
            x, y = [p.x for p in own], [p.y for p in own]
            spread = [[p.y - p.low for p in own], [p.high - p.y for p in own]]
            style = {"marker": "osD^vPX*"[k % 8], "color": PALETTE[k % len(PALETTE)], "ms": 4, "lw": 1}
            panel.errorbar(x, y, yerr=spread, capsize=2, elinewidth=0.7, label=name, **style)
        panel.set_xlabel(told.x)
        panel.grid(color="#e6e9ed")
        panel.set_axisbelow(True)
    panels[0].set_ylabel(curves[0].y)
    handles: dict[str, Any] = {}
    for panel in panels:
        lines, labels = panel.get_legend_handles_labels()
        handles |= dict(zip(labels, lines, strict=True))
    panels[-1].legend(
        handles.values(),
        handles.keys(),
        fontsize=7,
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
    )
    return as_svg(figure, title)


def rounds_chart(results: Results) -> str:
    """The value of every arm in every round, with a panel for each student. Empty with a single round."""
    last = max(a.round for a in results.arms)
    if last < 2:
        return ""
    students = list(dict.fromkeys(a.student for a in results.arms))[:MOST_PANELS]
    scale = 100.0 if results.metric == "accuracy" else 1.0
    figure, _ = new_figure(9.5, 2.8)
    figure.clear()
    panels = figure.subplots(1, len(students), squeeze=False, sharey=True)
    for panel, student in zip(panels.flat, students, strict=True):
        start = next(b for b in results.before if b.student == student)
        own = [a for a in results.arms if a.student == student]
        arms = [name for name in dict.fromkeys(a.arm for a in own) if name != "in hindsight"]
        for k, arm in enumerate(arms):
            line = [start, *sorted((a for a in own if a.arm == arm), key=lambda a: a.round)]
            values = [scale * a.value.value for a in line]
            panel.plot(
                range(len(values)), values, marker="o", ms=3, color=PALETTE[k % len(PALETTE)], label=arm
            )
        panel.set_title(student, fontsize=9, loc="left")
        panel.set_xticks(range(last + 1))
        panel.set_xlabel("round", fontsize=8)
    panels.flat[0].legend(fontsize=7, frameon=False)
    return as_svg(figure, "Accuracy from round to round")
