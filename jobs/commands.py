"""The command line: verb first, an experiment file, dotted overrides; each stage also alone, on the user's own files."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import pandas as pd
import typer
import yaml
from rich.table import Table

from cluster.errors import BadInput, TutelageError
from jobs import __version__
from jobs.context import Context
from jobs.experiment import Experiment, load_experiment, resolved
from jobs.progress import Talker

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
Overrides = Annotated[list[str] | None, typer.Argument(help="Dotted overrides, for example train.epochs=2 arms.0.lambda=0.3")]
Limit = Annotated[int | None, typer.Option(help="Use only the first N questions.")]
ExperimentFile = Annotated[Path, typer.Argument(metavar="FILE", help="An experiment file, for example experiments/quickstart.yaml")]


class _Options:
    """Options of the whole program."""

    debug = False


@app.callback(invoke_without_command=True)
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Choose, for every question, the verified teacher answer that suits this student now; train on it; say whether it helped."""
    _Options.debug = debug
    if version:
        print(__version__)
        raise typer.Exit


def _load(file: Path, overrides: list[str] | None, limit: int | None, seed: int | None) -> Experiment:
    extra = [f"limit={limit}"] if limit is not None else []
    extra += [f"seed={seed}"] if seed is not None else []
    return load_experiment(file, [*(overrides or []), *extra])


def _claim_run_directory(experiment: Experiment) -> Path:
    """Create the run's directory, or take it up again if the same experiment made it.

    Raises:
        BadInput: another experiment made it.
    """
    directory = (Path(experiment.runs) / experiment.name).resolve()
    saved = directory / "experiment.yaml"
    mine = resolved(experiment)
    if saved.exists():
        theirs = yaml.safe_load(saved.read_text(encoding="utf-8"))
        different = [k for k in mine if k not in ("ray", "placement", "store", "runs") and theirs.get(k) != mine[k]]
        if different:
            raise BadInput(
                f"{directory} was made by a different experiment",
                f"other values under {', '.join(different)}",
                "the same experiment",
                "give this one another name (name=NEW), or remove that directory; the store keeps all finished work",
            )
    elif directory.exists() and any(directory.iterdir()):
        raise BadInput(f"{directory} is not empty and no run made it", "", "a new or a run's directory", "give another name (name=NEW)")
    directory.mkdir(parents=True, exist_ok=True)
    saved.write_text(yaml.safe_dump(mine, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return directory


def _as_interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _interruptible(talker: Talker, directory: Path) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a clean end that says how to go on."""
    previous = signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        yield
    except KeyboardInterrupt:
        talker.say(f"interrupted; finished work is kept, run the same command again to go on ({directory})")
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, previous)


@app.command()
def run(
    file: ExperimentFile,
    overrides: Overrides = None,
    limit: Limit = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the whole experiment.")] = None,
    resume: Annotated[str, typer.Option(help="auto goes on from half-done stages; never starts those afresh.")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="The same as plan.")] = False,
) -> None:
    """Run an experiment: ask, verify, score, select, train, evaluate, report."""
    if resume not in ("auto", "never"):
        raise BadInput("--resume", resume, "auto or never", "")
    if dry_run:
        plan(file, overrides, limit, seed)
        return
    experiment = _load(file, overrides, limit, seed)
    directory = _claim_run_directory(experiment)
    talker = Talker()
    with _interruptible(talker, directory), Context(experiment, directory, talker, resume) as context:
        _run(context)


def _run(context: Context) -> None:
    """Run, summarise, write the report, print the verdict."""
    from jobs.pipeline import run_pipeline
    from jobs.report import write_report
    from jobs.results import summarise, verdict_lines, write_results

    outcome = run_pipeline(context)
    results = summarise(context, outcome)
    write_results(results, context.run_directory)
    _link_stages(context)
    page = write_report(results, context.run_directory)
    made = len(context.stages) - context.cached
    context.talker.say(f"{made} stages made, {context.cached} found in the store")
    for line in verdict_lines(results):
        context.talker.say(line)
    context.talker.say(f"report: {page}")


def _link_stages(context: Context) -> None:
    """Link the run to its stages: `stages/<label>` points into the store."""
    links = context.run_directory / "stages"
    links.mkdir(exist_ok=True)
    for label, stage in context.stages.items():
        link = links / label.replace(" ", "-").replace("/", "_")
        if link.is_symlink():
            link.unlink()
        link.symlink_to(os.path.relpath(stage.directory, links))


@app.command()
def plan(
    file: ExperimentFile, overrides: Overrides = None, limit: Limit = None, seed: Annotated[int | None, typer.Option()] = None
) -> None:
    """Show what a run would do: cached stages, remaining shards and tokens, placement. Starts no model."""
    from jobs.plan import make_plan

    experiment = _load(file, overrides, limit, seed)
    talker = Talker()
    with Context(experiment, Path(experiment.runs) / experiment.name, talker) as context:
        rows = make_plan(context)
    table = Table(title=f"plan of {experiment.name}", title_justify="left")
    for column in ("stage", "cached", "remaining", "placement"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(row.stage, row.cached, row.remaining, row.placement)
    talker.console.print(table)


@app.command()
def report(run_name: Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or its directory.")], runs: str = "runs") -> None:
    """Write a finished run's report again, and print its verdict. Starts no model."""
    directory = Path(run_name) if Path(run_name).is_dir() else Path(runs) / run_name
    saved = directory / "experiment.yaml"
    if not saved.is_file():
        raise BadInput("no run there", directory, "a directory that `tutelage run` made", f"runs are in {runs}/")
    experiment = load_experiment(saved)
    with Context(experiment, directory.resolve(), Talker()) as context:
        context.only_read = True
        _run(context)


@app.command()
def miniature(
    out: Annotated[Path, typer.Option(help="Store to build in.")] = Path("store"),
    seed: int = 0,
    train_questions: int = 400,
    evaluate_questions: int = 300,
) -> None:
    """Build the miniature world alone and print where its models and questions are."""
    from jobs.miniature import STUDENTS, TEACHERS, build_world

    experiment = load_experiment(Path(__file__).with_name("miniature.yaml"), [f"store={out}"])
    settings = {"seed": seed, "train_questions": train_questions, "evaluate_questions": evaluate_questions}
    experiment = experiment.model_copy(update={"miniature": type(experiment.miniature)(**settings)})  # type: ignore[call-arg,misc]
    talker = Talker()
    with _interruptible(talker, out), Context(experiment, out / "logs", talker) as context:
        directory = build_world(context, experiment.miniature)  # type: ignore[arg-type]
    for kind, names in (("teacher", TEACHERS), ("student", STUDENTS)):
        for name in names:
            print(f"{kind:8} {name:10} {directory / name / 'model'}")
    print(f"questions           {directory / 'train.jsonl'} {directory / 'evaluate.jsonl'}")


@app.command()
def score(
    student: Annotated[str, typer.Option(help="Directory or hub id of the student.")],
    answers: Annotated[
        Path, typer.Option(help="Folder with one <teacher>.jsonl per teacher: id, instruction, teacher_output, optional system.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for <teacher>_scas_scores.jsonl.")],
    scas_lambda: Annotated[float, typer.Option("--lambda-scas", help="Weight of the answer-question block, 0 to 1.")] = 0.5,
    compat: Annotated[str, typer.Option(help="ours, or reference to reproduce the authors' program.")] = "ours",
    target_layer: Annotated[str | None, typer.Option(help="Dotted name of the module whose output is h_t.")] = None,
    chat_template: Annotated[str | None, typer.Option(help="A Jinja file, or the word plain.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu or cuda; auto takes a GPU when there is one.")] = "auto",
    max_length: Annotated[int, typer.Option(help="Longer conversations get an error instead of a score.")] = 4096,
    limit: Limit = None,
    skip_broken_lines: Annotated[bool, typer.Option("--skip-broken-lines", help="Keep the good lines of a file with broken ones.")] = False,
) -> None:
    """Score your own answers under your own student, in this process, without Ray."""
    from cluster.loading import ModelSource, load_model, load_tokenizer
    from cluster.rendering import Renderer
    from jobs.layouts import read_teacher_files, write_scores
    from jobs.score import score_rows, shards_of
    from selection.costs import CostSettings
    from selection.statistics import Scorer

    if compat not in ("ours", "reference") or dtype not in ("float32", "bfloat16", "float16"):
        raise BadInput("--compat or --dtype", f"{compat}, {dtype}", "ours or reference; float32, bfloat16 or float16", "")
    if not 0 <= scas_lambda <= 1:
        raise BadInput("--lambda-scas is out of range", scas_lambda, "0 to 1", "")
    found = read_teacher_files(answers, skip_broken_lines, limit)
    rows = sorted((item for own in found.values() for item, _ in own), key=lambda r: (r.question_id, r.answer_id))
    sources = {item.answer_id: source for own in found.values() for item, source in own}
    where = ModelSource(student, dtype)  # type: ignore[arg-type]
    renderer = Renderer(load_tokenizer(where), chat_template, compat)  # type: ignore[arg-type]
    renderer.prove()
    scorer = Scorer(load_model(where, _device(device)), renderer.special_ids, target_layer)
    talker, tables = Talker(), []
    with talker.bar("score", len(rows), "answers") as bar:
        for _, chunk in shards_of(rows, 256):
            tables.append(score_rows(chunk, renderer, scorer, max_length))
            bar.advance(len(chunk))
    scores = pd.concat(tables, ignore_index=True)
    paths = write_scores(scores, sources, CostSettings("scas", scas_lambda), out)
    states = ", ".join(f"{n:,} {s}" for s, n in scores["state"].value_counts().items())
    talker.say(f"{states}; wrote {', '.join(str(p) for p in paths)}")


def _device(wanted: str) -> str:
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise BadInput("no GPU here", wanted, "cpu", "pass --device cpu")
    return wanted


@app.command()
def select(
    scores: Annotated[Path, typer.Option(help="Folder with <teacher>_scas_scores.jsonl.")],
    out: Annotated[Path, typer.Option(help="Folder for the selected sets.")],
    score_key: Annotated[str, typer.Option(help="Field that holds the cost; lower is better.")] = "scas_score",
    num_groups: Annotated[int, typer.Option(help="Groups G that a ranking is cut into.")] = 5,
    selected_group: Annotated[int, typer.Option(help="Group to draw from; 1 is the cheapest.")] = 1,
    seed: int = 0,
    compat: Annotated[str, typer.Option(help="ours keeps group 1 non-empty; reference leaves it empty when n < G.")] = "ours",
) -> None:
    """Select from scored answers: the minimum of each question, and one draw from a group, in the authors' layout."""
    from jobs.layouts import group_members, ranked, read_scores, write_selection
    from selection.rules import RuleSettings, check_rule, question_generator

    check_rule(RuleSettings("groups", num_groups, selected_group), set())
    if compat not in ("ours", "reference"):
        raise BadInput("--compat", compat, "ours or reference", "")
    questions = ranked(list(read_scores(scores, score_key)), score_key)
    drawn: list[Any] = []
    for question, rows in questions.items():
        members = group_members(rows, num_groups, selected_group, compat)
        if members:
            drawn.append(members[int(question_generator(seed, question).integers(len(members)))])
    minimum, group = out / "min_score_selected.jsonl", out / f"{num_groups}_groups" / f"selected_group_{selected_group}.jsonl"
    write_selection(minimum, [rows[0] for rows in questions.values()], score_key)
    write_selection(group, drawn, score_key)
    empty = len(questions) - len(drawn)
    note = f"; {empty:,} questions have no answer in group {selected_group}" if empty else ""
    Talker().say(f"{len(questions):,} questions; wrote {minimum} and {group} ({len(drawn):,} rows){note}")


@app.command()
def verify(
    answers: Annotated[Path, typer.Option(help="JSONL, JSON or Parquet with an answer and a reference in each row.")],
    out: Annotated[Path, typer.Option(help="JSONL to write: the rows with verdict and extracted.")],
    method: Annotated[str, typer.Option(help="math, exact, numeric, choice or function.")] = "math",
    answer_field: Annotated[str | None, typer.Option(help="Dotted path of the answer in a row.")] = None,
    reference_field: Annotated[str | None, typer.Option(help="Dotted path of the reference in a row.")] = None,
    pattern: Annotated[str | None, typer.Option(help="Regular expression whose one group is the final answer.")] = None,
    function: Annotated[str | None, typer.Option(help="package.module:function(answer, reference) for method function.")] = None,
    timeout_s: Annotated[float, typer.Option(help="Wall-clock limit of one check.")] = 5.0,
    skip_broken_lines: Annotated[bool, typer.Option("--skip-broken-lines")] = False,
) -> None:
    """Verify answers in your own file: correct, wrong, unparsed, timed_out."""
    import json
    from collections import Counter

    from jobs.datasets import answer_and_reference, read_rows
    from jobs.store import write_atomically
    from selection.verification import COMPARISONS, Verifier, VerifySettings

    if method not in (*COMPARISONS, "function"):
        raise BadInput("--method", method, ", ".join([*COMPARISONS, "function"]), "")
    settings = VerifySettings(method=method, pattern=pattern, function=function, timeout_s=timeout_s)  # type: ignore[arg-type]
    rows = list(read_rows(answers, skip_broken_lines))
    talker, lines, counts = Talker(), [], Counter[str]()
    with Verifier(settings) as verifier, talker.bar("verify", len(rows), "answers") as bar:
        for number, row in rows:
            answer, reference = answer_and_reference(row, f"{answers} line {number}", answer_field, reference_field)
            verdict = verifier.check(answer, reference)
            counts[verdict.state] += 1
            lines.append(json.dumps({**row, "verdict": verdict.state, "extracted": verdict.extracted}, ensure_ascii=False, default=str))
            bar.advance()
    write_atomically(out, ("\n".join(lines) + "\n" if lines else "").encode("utf-8", "surrogatepass"))
    talker.say(f"{', '.join(f'{n:,} {s}' for s, n in counts.most_common())}; wrote {out}")


def main() -> None:
    """Entry of `tutelage` and `python -m jobs`: one line for a failure the user can mend, the traceback behind --debug."""
    try:
        app()
    except TutelageError as error:
        if _Options.debug:
            raise
        print(f"tutelage: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
