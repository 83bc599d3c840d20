"""Stages alone, on the user's own files, in this process and without Ray: `score`, `select`, `verify`."""

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from cluster.errors import BadInput
from jobs.run.progress import Terminal

Limit = Annotated[int | None, typer.Option(help="Use only the first N questions.")]


def score(
    student: Annotated[str, typer.Option(help="Directory or hub id of the student.")],
    answers: Annotated[
        Path,
        typer.Option(
            help="Folder with one <teacher>.jsonl per teacher: id, instruction, teacher_output, maybe system."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for <teacher>_scas_scores.jsonl.")],
    scas_lambda: Annotated[
        float, typer.Option("--lambda-scas", help="Weight of the answer-question block, 0 to 1.")
    ] = 0.5,
    compat: Annotated[
        str, typer.Option(help="ours, or reference to reproduce the authors' program.")
    ] = "ours",
    target_layer: Annotated[
        str | None, typer.Option(help="Dotted name of the module whose output is h_t.")
    ] = None,
    chat_template: Annotated[str | None, typer.Option(help="A Jinja file, or the word plain.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu or cuda; auto takes a GPU when there is one.")] = "auto",
    max_length: Annotated[
        int, typer.Option(help="Longer conversations get an error instead of a score.")
    ] = 4096,
    limit: Limit = None,
    skip_broken_lines: Annotated[
        bool, typer.Option("--skip-broken-lines", help="Keep the good lines of a file with broken ones.")
    ] = False,
) -> None:
    """Score your own answers under your own student, in this process, without Ray."""
    from cluster.models.loading import ModelSource, load_model, load_tokenizer
    from cluster.models.rendering import Renderer
    from jobs.files.layouts import read_teacher_files, write_scores
    from jobs.stages.score import score_rows, shards_of
    from selection.costs import CostSettings
    from selection.scoring import Scorer

    if compat not in ("ours", "reference") or dtype not in ("float32", "bfloat16", "float16"):
        raise BadInput(
            "--compat or --dtype", f"{compat}, {dtype}", "ours or reference; float32, bfloat16 or float16", ""
        )
    if not 0 <= scas_lambda <= 1:
        raise BadInput("--lambda-scas is out of range", scas_lambda, "0 to 1", "")
    terminal, tables = Terminal(), []
    found = read_teacher_files(answers, terminal.say if skip_broken_lines else None, limit)
    rows = sorted(
        (item for own in found.values() for item, _ in own), key=lambda r: (r.question_id, r.answer_id)
    )
    sources = {item.answer_id: source for own in found.values() for item, source in own}
    where = ModelSource(student, dtype)  # type: ignore[arg-type]
    renderer = Renderer(load_tokenizer(where), chat_template, compat)  # type: ignore[arg-type]
    renderer.prove()
    scorer = Scorer(load_model(where, _device(device)), renderer.special_ids, target_layer)
    for line in scorer.proof.lines.values():
        terminal.say(line)
    with terminal.bar("score", len(rows), "answers") as bar:
        for _, chunk in shards_of(rows, 256):
            tables.append(score_rows(chunk, renderer, scorer, max_length))
            bar.advance(len(chunk))
    scores = pd.concat(tables, ignore_index=True)
    paths = write_scores(scores, sources, CostSettings("scas", scas_lambda), out)
    states = ", ".join(f"{n:,} {s}" for s, n in scores["state"].value_counts().items())
    terminal.say(f"{states}; wrote {', '.join(str(p) for p in paths)}")


def audit(
    student: Annotated[str, typer.Option(help="Directory or hub id of the student.")],
    answers: Annotated[
        Path, typer.Option(help="Folder with one <teacher>.jsonl per teacher; `export` writes a run's.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="JSON file for the correlations; a Parquet file with every answer is written beside it."
        ),
    ],
    questions: Annotated[int, typer.Option(help="Questions in the sample, drawn by the seed.")] = 200,
    seed: int = 0,
    chat_template: Annotated[str | None, typer.Option(help="A Jinja file, or the word plain.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda; auto takes a GPU when there is one.")] = "auto",
    max_length: Annotated[int, typer.Option(help="Longer conversations are left out.")] = 4096,
) -> None:
    """Audit the costs: do they rank answers as their exact gradient norms do? One backward pass an answer, in
    float32.
    """
    import json
    from dataclasses import asdict

    import numpy as np
    from rich.table import Table

    from cluster.models.loading import ModelSource, load_model, load_tokenizer
    from cluster.models.rendering import Renderer
    from jobs.files.layouts import read_teacher_files
    from jobs.run.store import write_atomically
    from jobs.stages.score import score_rows
    from selection.audit import NORMS, Gradients, agreements
    from selection.costs import COSTS, CostSettings, compute_cost
    from selection.scoring import Scorer

    terminal, where = Terminal(), ModelSource(student)
    found = read_teacher_files(answers)
    rows = sorted(
        (item for own in found.values() for item, _ in own), key=lambda r: (r.question_id, r.answer_id)
    )
    known = sorted({r.question_id for r in rows})
    drawn = set(np.random.default_rng(seed).permutation(known)[:questions].tolist())
    renderer = Renderer(load_tokenizer(where), chat_template)
    renderer.prove()
    sample = {r.answer_id: r for r in rows if r.question_id in drawn}
    model = load_model(where, _device(device))
    every = score_rows(list(sample.values()), renderer, Scorer(model, renderer.special_ids), max_length)
    frame = every[every["state"] == "scored"].reset_index(drop=True)
    left_out = len(every) - len(frame)
    if frame.empty:
        raise BadInput(
            "no answer could be scored", f"{left_out} left out", "at least one", "look at the answers"
        )
    gradients, norms = Gradients(model, renderer.special_ids), []
    with terminal.bar("gradients", len(frame), "answers") as bar:
        for row in (sample[str(i)] for i in frame["answer_id"]):
            norms.append(gradients.norms(renderer.conversation(row.question, row.answer, row.system)))
            bar.advance()
    frame = frame.drop(columns=["state", "reason", "conversation_tokens"]).join(
        pd.DataFrame(norms, columns=list(NORMS))
    )
    costs = frame.assign(**{name: compute_cost(frame, CostSettings(name)) for name in COSTS})  # type: ignore[arg-type]
    results = agreements(costs, list(COSTS), seed)
    shown = Table(
        title="Spearman's correlation with the exact gradient norm, 95 % intervals over questions; "
        f"{left_out} left out"
    )
    for column in ("cost", "norm", "scope", "correlation", "interval", "questions", "answers"):
        shown.add_column(column)
    for r in results:
        shown.add_row(
            r.cost,
            r.norm,
            r.scope,
            f"{r.correlation:+.2f}",
            f"{r.low:+.2f} to {r.high:+.2f}",
            f"{r.questions:,}",
            f"{r.answers:,}",
        )
    terminal.show(shown)
    write_atomically(
        out, json.dumps({"left_out": left_out, "agreements": [asdict(r) for r in results]}, indent=1).encode()
    )
    costs.to_parquet(out.with_suffix(".parquet"), index=False)
    terminal.say(f"wrote {out} and {out.with_suffix('.parquet')}")


def _device(wanted: str) -> str:
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise BadInput("no GPU here", wanted, "cpu", "pass --device cpu")
    return wanted


def select(
    scores: Annotated[Path, typer.Option(help="Folder with <teacher>_scas_scores.jsonl.")],
    out: Annotated[Path, typer.Option(help="Folder for the selected sets.")],
    score_key: Annotated[
        str, typer.Option(help="Field that holds the cost; lower is better.")
    ] = "scas_score",
    num_groups: Annotated[int, typer.Option(help="Groups G that a ranking is cut into.")] = 5,
    selected_group: Annotated[int, typer.Option(help="Group to draw from; 1 is the cheapest.")] = 1,
    seed: int = 0,
    compat: Annotated[
        str, typer.Option(help="ours keeps group 1 non-empty; reference leaves it empty when n < G.")
    ] = "ours",
) -> None:
    """Select from scored answers: the minimum of each question, and one draw from a group, in the authors'
    layout.
    """
    from jobs.files.layouts import group_members, ranked, read_scores, write_selection
    from selection.rules import RuleSettings, check_rule, question_generator

    check_rule(RuleSettings("groups", num_groups, selected_group), set())
    if compat not in ("ours", "reference"):
        raise BadInput("--compat", compat, "ours or reference", "")
    questions = ranked(list(read_scores(scores, score_key, Terminal().say)), score_key)
    drawn: list[Any] = []
    for question, rows in questions.items():
        members = group_members(rows, num_groups, selected_group, compat)
        if members:
            drawn.append(members[int(question_generator(seed, question).integers(len(members)))])
    minimum, group = (
        out / "min_score_selected.jsonl",
        out / f"{num_groups}_groups" / f"selected_group_{selected_group}.jsonl",
    )
    write_selection(minimum, [rows[0] for rows in questions.values()], score_key)
    write_selection(group, drawn, score_key)
    empty = len(questions) - len(drawn)
    note = f"; {empty:,} questions have no answer in group {selected_group}" if empty else ""
    Terminal().say(f"{len(questions):,} questions; wrote {minimum} and {group} ({len(drawn):,} rows){note}")


def verify(
    answers: Annotated[
        Path, typer.Option(help="JSONL, JSON or Parquet with an answer and a reference in each row.")
    ],
    out: Annotated[Path, typer.Option(help="JSONL to write: the rows with verdict and extracted.")],
    method: Annotated[str, typer.Option(help="math, exact, numeric, choice or function.")] = "math",
    answer_field: Annotated[str | None, typer.Option(help="Dotted path of the answer in a row.")] = None,
    reference_field: Annotated[
        str | None, typer.Option(help="Dotted path of the reference in a row.")
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help="Regular expression whose one group is the final answer.")
    ] = None,
    function: Annotated[
        str | None, typer.Option(help="package.module:function(answer, reference) for method function.")
    ] = None,
    timeout_s: Annotated[float, typer.Option(help="Wall-clock limit of one check.")] = 5.0,
    skip_broken_lines: Annotated[bool, typer.Option("--skip-broken-lines")] = False,
) -> None:
    """Verify answers in your own file: correct, wrong, unparsed, timed_out."""
    import json
    from collections import Counter

    from jobs.files.answers import answer_and_reference
    from jobs.files.rows import read_rows
    from jobs.run.store import write_atomically
    from selection.comparison import COMPARISONS
    from selection.verification import Verifier, VerifySettings

    if method not in (*COMPARISONS, "function"):
        raise BadInput("--method", method, ", ".join([*COMPARISONS, "function"]), "")
    settings = VerifySettings(method=method, pattern=pattern, function=function, timeout_s=timeout_s)  # type: ignore[arg-type]
    terminal, lines, counts = Terminal(), [], Counter[str]()
    rows = list(read_rows(answers, terminal.say if skip_broken_lines else None))
    with Verifier(settings) as verifier, terminal.bar("verify", len(rows), "answers") as bar:
        for number, row in rows:
            answer, reference = answer_and_reference(
                row, f"{answers} line {number}", answer_field, reference_field
            )
            verdict = verifier.check(answer, reference)
            counts[verdict.state] += 1
            lines.append(
                json.dumps(
                    {**row, "verdict": verdict.state, "extracted": verdict.extracted},
                    ensure_ascii=False,
                    default=str,
                )
            )
            bar.advance()
    write_atomically(out, ("\n".join(lines) + "\n" if lines else "").encode("utf-8", "surrogatepass"))
    terminal.say(f"{', '.join(f'{n:,} {s}' for s, n in counts.most_common())}; wrote {out}")
