"""What answers in memory or in files would cost a student to learn."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cluster.errors import BadInput
from cluster.models.rendering import Renderer
from jobs.files.answers import Row
from jobs.files.columns import id_of
from jobs.files.given import Column, Lists, Rows, read_given
from jobs.files.layouts import Answers, answer_name, read_teacher_files, state_of
from jobs.files.refusals import warn_of
from jobs.files.scores import write_scores
from jobs.files.trajectories import WHICH_TURNS, WhichTurns
from jobs.run.progress import Terminal
from jobs.stages.scorer import AnyScorer, beyond_line, score_rows, shards_of
from jobs.standalone.numbers import number, whole
from jobs.standalone.student import COMPATS, DTYPES, Student, device_of, open_student
from selection.costs import COSTS_OF_STATISTICS, CostName, CostSettings, compute_cost
from selection.scoring import STATISTIC_NAMES, Scorer

SHARD = 256


def score(
    student: Student,
    questions: Column | None = None,
    answers: Lists | Rows | None = None,
    *,
    cost: CostName = "scas",
    scas_lambda: float = 0.5,
    chat_template: str | None = None,
    target_layer: str | None = None,
    max_length: int = 4096,
    turns: WhichTurns = "last",
    cut: bool = False,
    dtype: str = "float32",
    device: str = "auto",
    compat: str = "ours",
    verbose: bool = False,
) -> pd.DataFrame:
    """What each answer would cost this student to learn. One forward pass an answer, no Ray.

    Args:
        student: a directory, a hub id, or a loaded `(model, tokenizer)` of transformers. A loaded one keeps
            its dtype and device and is left as it was.
        questions: one entry a question: a text, or a list of messages with `role` and `content`. Leave it
            out where the answers come as rows.
        answers: lists beside the questions, or rows that hold both. Lists: one entry a question, which is a
            text, an assistant's message, None, or a list of several answers; a dictionary of such lists by
            teacher. Rows: a DataFrame, a `datasets.Dataset`, a list of dictionaries, or a path, in the
            layouts of `docs/data.md`.
        cost: which cost the column `cost` holds. All costs of `COSTS_OF_STATISTICS` follow from the columns.
        scas_lambda: weight of the answer-question block of `scas`, 0 to 1.
        chat_template: None for the tokenizer's own, a Jinja file, or the word `plain`.
        target_layer: dotted name of the module whose output is h_t; None for the last layer's `mlp.up_proj`.
        max_length: tokens of question and answer; longer ones get no cost.
        turns: which turns of the assistant are the answer, in rows of several turns: the `last` one, `all` of
            them after the question, or `each` as an answer of its own. What tools and users say between them
            is context.
        cut: with turns `all`, an answer with more than `max_length` tokens is cut after the last turn of the
            assistant that fits; `reason` says so.
        dtype, device: of a student that is loaded here: float32, bfloat16 or float16; cpu, cuda or auto.
        compat: `reference` reproduces the program of the SCAS authors.
        verbose: show progress.

    Returns:
        One row an answer, in the order of the questions, then teachers, then samples; behind all of them
        those that have no text or could not be understood:

        - `question_id` (of lists: the place, as text), `answer_id`, `teacher`, `question`, `answer`
        - `state`: `scored`, or why there is no cost: `empty`, `too_long`, `unrenderable`, `quarantined`,
          `not_understood`; `reason` says more
        - `cost`: lower is chosen earlier; NaN where the state is not `scored`
        - `conversation_tokens`, and the sums of `selection.scoring.Statistics`: losses in nats over the
          answer's or the question's tokens without special ones

    Raises:
        BadInput: an option out of range, lists of different lengths, no answer that can be understood, a
            model that cannot be loaded.

    Warns:
        UserWarning: some answers have no cost, or are longer than the model's declared positions; says how
            many.

    Example:
        >>> import tutelage
        >>> costs = tutelage.score("path/to/student", ["1 + 2?"], {"ann": ["A: 3"]})  # doctest: +SKIP
        >>> costs[["teacher", "cost"]]  # doctest: +SKIP
    """
    check_cost(cost, scas_lambda)
    if answers is None:
        raise BadInput("no answers", "", "lists beside the questions, or rows that hold both", "")
    check_turns(turns, cut)
    max_length = whole("max_length", max_length, 1)
    found = read_given(questions, answers, turns)
    terminal = Terminal(quiet=not verbose)
    with open_student(student, chat_template, compat, dtype, device) as (model, renderer):
        scorer = Scorer(model, renderer.special_ids, target_layer)
        statistics = score_in_shards(found.in_order(), renderer, scorer, max_length, terminal, cuts=cut)
    costs = as_costs(statistics, found, CostSettings(cost, scas_lambda))
    warn_of(costs["state"].tolist(), ("scored",), "no cost")
    if line := beyond_line(statistics["reason"]):
        warnings.warn(line, stacklevel=2)
    return costs


def as_costs(statistics: pd.DataFrame, found: Answers, settings: CostSettings) -> pd.DataFrame:
    """The statistics of answers with what they say, in the order in which they were given, then those that
    could not be understood.
    """
    rows = {row.answer_id: row for row in found.rows}
    table = statistics.set_index("answer_id").loc[list(rows)].reset_index()
    texts = [(row.prompt.text, row.answer) for row in rows.values()]
    table[["question", "answer"]] = pd.DataFrame(texts, columns=["question", "answer"])
    names = list(STATISTIC_NAMES)
    table[names] = table[names].astype(float).where(table["state"] == "scored")
    table["cost"] = cost_where_scored(table, settings)
    refused = [
        {
            "question_id": id_of(row) or "",
            "answer_id": answer_name(teacher, id_of(row) or "", row.get("sample", "")),
            "teacher": teacher,
            "state": state_of(reason),
            "reason": reason,
            "conversation_tokens": 0,
        }
        for teacher, row, reason in found.refused
    ]
    every = pd.concat([table, pd.DataFrame(refused)], ignore_index=True) if refused else table
    columns = ["question_id", "answer_id", "teacher", "question", "answer", "state", "reason", "cost"]
    return every[[*columns, "conversation_tokens", *names]]


def cost_where_scored(table: pd.DataFrame, settings: CostSettings) -> pd.Series:
    """The cost of the answers that have statistics; NaN of the others."""
    scored = table[table["state"] == "scored"]
    return compute_cost(scored, settings).reindex(table.index)


def check_cost(cost: str, scas_lambda: float = 0.5) -> None:
    """Refuse a cost that does not follow from statistics.

    Raises:
        BadInput: with those that do.
    """
    if cost not in COSTS_OF_STATISTICS:
        remedy = "other costs need more than one forward pass: use them in an experiment"
        raise BadInput("not a cost of an answer's statistics", cost, ", ".join(COSTS_OF_STATISTICS), remedy)
    if not 0 <= number("--lambda", scas_lambda) <= 1:
        raise BadInput("--lambda is out of range", scas_lambda, "0 to 1", "")


@dataclass(frozen=True)
class ScoreOptions:
    """The options of `tutelage score`."""

    student: str
    answers: str
    out: Path
    scas_lambda: float
    compat: str
    target_layer: str | None
    chat_template: str | None
    dtype: str
    device: str
    max_length: int
    limit: int | None
    skip_broken_lines: bool
    address: str | None = None
    store: str = "store"
    workers: int = 1
    num_gpus: float = 0.0
    turns: WhichTurns = "last"
    cut: bool = False
    answer_field: str | None = None


def score_files(options: ScoreOptions) -> None:
    """Score every answer, write the scores beside their rows, and say how many of each state there are.

    Raises:
        BadInput: an option out of its range, a defect of a file.
    """
    check_options(options)
    terminal = Terminal()
    on_broken = terminal.say if options.skip_broken_lines else None
    found = read_teacher_files(options.answers, on_broken, options.limit, options.turns, options.answer_field)
    for line in [str(found), *found.notes]:
        terminal.say(line)
    if not found.rows:
        raise BadInput("no answer there that can be scored", options.answers, "at least one", "")
    if options.address is None:
        scores = score_here(options, found.in_order(), terminal)
    else:
        from jobs.standalone.cluster import score_on_cluster

        scores = score_on_cluster(options, found.in_order(), terminal)
    is_any = (scores["state"] == "scored").any()
    settings = CostSettings("scas", options.scas_lambda)
    # earlier scores stay where there are none to write
    there = set(options.out.glob("*.jsonl"))
    paths = write_scores(scores, found, settings, options.out, options.student) if is_any else []
    if left := sorted(path.name for path in there - set(paths)):
        told = (
            f"{', '.join(left[:4])}: not scored now, and a selection from {options.out} would take them too"
        )
        terminal.say(f"beware: {told}")
    states = ", ".join(f"{n:,} {s}" for s, n in scores["state"].value_counts().items())
    terminal.say(f"{states}; wrote {', '.join(str(p) for p in paths) or 'nothing'}")
    if line := beyond_line(scores["reason"]):
        terminal.say(f"beware: {line}")
    if not is_any:
        first = next((str(reason) for reason in scores["reason"] if reason), "")
        raise BadInput("no answer could be scored", first[:200] or states, "one at least", "")


def score_here(options: ScoreOptions, rows: Sequence[Row], terminal: Terminal) -> pd.DataFrame:
    """The statistics of all rows, made in this process."""
    o = options
    with open_student(o.student, o.chat_template, o.compat, o.dtype, o.device) as (model, renderer):
        scorer = Scorer(model, renderer.special_ids, o.target_layer)
        for line in scorer.proof.lines.values():
            terminal.say(line)
        return score_in_shards(rows, renderer, scorer, o.max_length, terminal, cuts=o.cut)


def check_options(options: ScoreOptions) -> None:
    """Refuse what no student is loaded for."""
    compat, dtype = options.compat, options.dtype
    if compat not in COMPATS or dtype not in DTYPES:
        raise BadInput(
            "--compat or --dtype", f"{compat}, {dtype}", "ours or reference; float32, bfloat16 or float16", ""
        )
    if options.address is not None and compat != "ours":
        raise BadInput("--address", f"with --compat {compat}", "--compat ours", "score in this process")
    check_cost("scas", options.scas_lambda)
    whole("--max-length", options.max_length, 1)
    check_turns(options.turns, options.cut)
    device_of(options.device)
    if options.limit is not None and options.limit < 1:
        raise BadInput("--limit", options.limit, "1 or more", "")


def check_turns(turns: str, cut: bool = False) -> None:
    """Refuse another word than those for the turns of an answer, and a cut where no answer has several.

    Raises:
        BadInput: with these words.
    """
    if turns not in WHICH_TURNS:
        raise BadInput("--turns", turns, ", ".join(WHICH_TURNS), "")
    if cut and turns != "all":
        raise BadInput("--cut", f"with --turns {turns}", "--turns all", "only answers of many turns are cut")


def score_in_shards(
    rows: Sequence[Row],
    renderer: Renderer,
    scorer: AnyScorer,
    max_length: int,
    terminal: Terminal,
    name: str = "score",
    cuts: bool = False,
) -> pd.DataFrame:
    """The statistics of all rows, with a bar that advances as answers are finished."""
    tables = []
    with terminal.bar(name, len(rows), "answers") as bar:
        for _, chunk in shards_of(rows, SHARD):
            with bar.call(len(chunk)):
                tables.append(score_rows(chunk, renderer, scorer, max_length, cuts))
    return pd.concat(tables, ignore_index=True)
