"""The page of a sweep: the accuracy of each setting with intervals, parallel coordinates, and the best
setting with the command that runs it."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cluster.storage import Place
from jobs.report.page import PALETTE, as_svg, new_figure, render_page
from jobs.results.summary import finite, format_interval
from jobs.run.store import write_table
from jobs.sweep.results import SettingResult, SweepResults, plain_results

# neither the settings' blue nor the best one's green
REFERENCES = (
    PALETTE[1],
    PALETTE[3],
    PALETTE[4],
    PALETTE[6],
)


def write_sweep(results: SweepResults, directory: Place) -> Place:
    """Write `report.html`, `results.json` and `trials.parquet` of a sweep. Returns the path of the page."""
    (directory / "results.json").write_bytes(
        json.dumps(finite(plain_results(results)), indent=1, default=str).encode()
    )
    write_table(directory / "trials.parquet", results.trials)
    page = directory / "report.html"
    page.write_bytes(render_sweep(results).encode("utf-8", "replace"))
    return page


def render_sweep(results: SweepResults) -> str:
    """Render the sweep as one HTML page."""
    drawn = [r for r in results.settings if r.setting.values and r.value is not None]
    keys = list(dict.fromkeys(key for r in drawn for key, _ in r.setting.values))
    charts = {f"key {k}": _against(results, drawn, key) for k, key in enumerate(keys)}
    charts["parallel"] = _parallel(results, drawn, keys) if len(keys) > 1 and len(drawn) > 1 else ""
    return render_page(
        "sweep.html.j2",
        charts,
        r=results,
        keys=keys,
        settings=_setting_table(results),
        interval=lambda i: format_interval(i, results.metric),
        others=any(not r.setting.values for r in results.settings),
    )


def _setting_table(results: SweepResults) -> pd.DataFrame:
    unit = 100.0 if results.metric == "accuracy" else 1.0
    rows = []
    for r in sorted(results.settings, key=lambda r: -np.inf if r.value is None else -r.value.value):
        c = r.against_baseline
        row: dict[str, Any] = {
            "setting": r.setting.label,
            "state": r.state,
            "seeds": len(r.seeds),
            "value, 95 % interval": "" if r.value is None else format_interval(r.value, results.metric),
        }
        if results.baseline:
            d = None if c is None or not c.questions else c.difference
            difference = (
                "" if d is None else f"{unit * d.value:+.3g} ({unit * d.low:+.3g} to {unit * d.high:+.3g})"
            )
            row |= {
                f"against {results.baseline}": difference,
                "p (Holm)": "" if r.holm_p is None or not np.isfinite(r.holm_p) else f"{r.holm_p:.3f}",
                "real": "" if c is None else "yes" if r.real else "cannot tell",
            }
        rows.append(row)
    return pd.DataFrame(rows)


def _positions(results: Sequence[SettingResult], key: str) -> tuple[list[float], list[str] | None]:
    """The position of each setting on a key's axis. If the key's values are no numbers, also the axis's
    labels.
    """
    values = [dict(r.setting.values)[key] for r in results]
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return [float(v) for v in values], None
    names = list(dict.fromkeys(_named(v) for v in values))
    return [float(names.index(_named(v))) for v in values], names


def _named(value: Any) -> str:
    return str(value.get("name") or value.get("rule") or value) if isinstance(value, dict) else str(value)


def _unit(results: SweepResults) -> tuple[float, str]:
    return (
        (100.0, "accuracy, %") if results.metric == "accuracy" else (1.0, "minus loss, nats per answer token")
    )


def _is_logarithmic(x: Sequence[float]) -> bool:
    """Whether the values span so large a range that the axis has to be logarithmic."""
    return min(x) > 0 and max(x) / min(x) > 30


def _against(results: SweepResults, drawn: Sequence[SettingResult], key: str) -> str:
    """A chart of the result against one key. Each setting is a point with its interval. Reference arms are
    lines with bands.
    """
    scale, unit = _unit(results)
    x, names = _positions(drawn, key)
    figure, axis = new_figure(9, 3.4)
    for k, r in enumerate(q for q in results.settings if not q.setting.values and q.value is not None):
        if r.value is not None:
            color = REFERENCES[k % len(REFERENCES)]
            axis.axhline(scale * r.value.value, color=color, lw=1.2, ls="--", label=r.setting.arm)
            axis.axhspan(scale * r.value.low, scale * r.value.high, color=color, alpha=0.08, lw=0)
    by_x: dict[float, int] = {}
    spread = (max(x) - min(x) or 1.0) * 0.008
    for place, r in sorted(zip(x, drawn, strict=True), key=lambda item: item[0]):
        nth = by_x.get(place, 0)
        by_x[place] = nth + 1
        if r.value is not None:
            low, high = scale * (r.value.value - r.value.low), scale * (r.value.high - r.value.value)
            shifted = place if names is None and _is_logarithmic(x) else place + nth * spread
            color = (
                PALETTE[2] if results.best is not None and r.setting == results.best.setting else PALETTE[0]
            )
            axis.errorbar(
                shifted, scale * r.value.value, yerr=[[low], [high]], fmt="o", color=color, capsize=3, ms=5
            )
    if names is not None:
        axis.set_xticks(range(len(names)), names)
    elif _is_logarithmic(x):
        axis.set_xscale("log")
    axis.set_xlabel(key)
    axis.set_ylabel(unit)
    axis.grid(axis="y", color="#e6e9ed")
    axis.set_axisbelow(True)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return as_svg(figure, f"{key} against {unit}, 95 % intervals")


def _parallel(results: SweepResults, drawn: Sequence[SettingResult], keys: Sequence[str]) -> str:
    """A chart of parallel coordinates. Each key has an axis, and so has the result. Each setting is a line,
    coloured by its result.
    """
    import matplotlib

    scale, unit = _unit(results)
    value = np.array([scale * r.value.value for r in drawn if r.value is not None])
    columns = [_positions(drawn, key) for key in keys] + [(value.tolist(), None)]
    figure, axis = new_figure(9, 3.8)
    heights = []
    for at, (x, names) in enumerate(columns):
        shown = np.log(x) if names is None and _is_logarithmic(x) else np.array(x)
        low, span = shown.min(), float(np.ptp(shown)) or 1.0
        heights.append((shown - low) / span)
        axis.axvline(at, color="#9aa4b0", lw=1)
        for text, height in {_tick(v, names): h for v, h in zip(x, heights[-1], strict=True)}.items():
            behind = {"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
            axis.annotate(
                text,
                (at, height),
                xytext=(5, 0),
                textcoords="offset points",
                fontsize=8,
                va="center",
                bbox=behind,
                zorder=5,
            )
    colors = matplotlib.colormaps["viridis"]((value - value.min()) / (float(np.ptp(value)) or 1.0) * 0.9)
    for k in np.argsort(value):
        axis.plot(range(len(columns)), [h[k] for h in heights], color=colors[k], lw=1.6, alpha=0.85)
    axis.set_xticks(range(len(columns)), [*keys, unit])
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.spines["bottom"].set_visible(False)
    axis.set_xlim(-0.1, len(columns) - 0.6)
    return as_svg(figure, f"Parallel coordinates of {', '.join(keys)} and {unit}")


def _tick(value: float, names: Sequence[str] | None) -> str:
    return f"{value:.3g}" if names is None else names[int(value)]
