"""The parts that all pages share: a self-contained HTML frame, tables, and charts as inline SVG.

A page needs no network. Its styles are inside it, and so is its one script, if it has any. The page's content
security policy names that script by its hash, so no other script runs. All text that models wrote is escaped.
"""

import base64
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

PALETTE = (
    "#2f6f9f",
    "#c8663a",
    "#4d8f5b",
    "#8a63a8",
    "#b0893a",
    "#5a7d8c",
    "#a8475f",
    "#6b6b6b",
    "#3a9b9b",
    "#9b9b3a",
)


INK = "#0a0b0c"  # colour of lines and words in charts: replaced by the page's own, light or dark


def render_page(template: str, charts: Mapping[str, str], script: str = "", **content: Any) -> str:
    """Fill a template of this folder. `charts` (SVG) and `script` are inserted as they are, because we made
    them. All other content is escaped.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.globals["table"] = lambda frame: _markup(_table(frame))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        charts={name: _markup(svg) for name, svg in charts.items()},
        script=_markup(script),
        script_hash=_markup(f"sha256-{digest}"),
        **content,
    )


def _markup(html: str) -> Any:
    from markupsafe import Markup

    return Markup(html)  # made here, from escaped parts


def _table(frame: pd.DataFrame) -> str:
    """A table as HTML. Every cell is escaped, and numbers are right-aligned."""
    from markupsafe import escape

    if len(frame) == 0:
        return "<p class='soft'>nothing</p>"
    numeric = {str(c) for c in frame.columns if pd.api.types.is_numeric_dtype(frame[c])}
    head = "".join(f"<th{' class=n' if str(c) in numeric else ''}>{escape(c)}</th>" for c in frame.columns)
    rows = []
    for row in frame.itertuples(index=False):
        cells = zip(frame.columns, row, strict=True)
        rows.append(
            "".join(f"<td{' class=n' if str(c) in numeric else ''}>{escape(_cell(v))}</td>" for c, v in cells)
        )
    return f"<div class=wide><table><tr>{head}</tr>{''.join(f'<tr>{r}</tr>' for r in rows)}</table></div>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return (
            ""
            if pd.isna(value)
            else f"{value:,.0f}"
            if value == int(value) and abs(value) >= 10
            else f"{value:.2g}"
            if 0 < abs(value) < 0.001
            else f"{value:,.3f}".rstrip("0").rstrip(".")
        )
    if isinstance(value, dict):
        return ", ".join(f"{k} {_cell(v)}" for k, v in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "font.size": 10,
            "font.family": "DejaVu Sans",
            "svg.fonttype": "path",
            "text.parse_math": False,  # a name may hold a dollar
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "savefig.facecolor": "none",
            **dict.fromkeys(
                ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
            ),
        }
    )
    plt.rcParams["svg.hashsalt"] = "tutelage"
    return plt.subplots(figsize=(width, height))


def as_svg(figure: Any, title: str) -> str:
    """A figure as inline SVG, with a title for screen readers."""
    import matplotlib.pyplot as plt
    from markupsafe import escape

    buffer = io.StringIO()
    figure.tight_layout()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)
