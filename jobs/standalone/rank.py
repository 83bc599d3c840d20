"""Which teacher a student should learn from, told from their answers before anything is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
from rich.table import Table

from cluster.errors import BadInput
from cluster.storage import Place
from jobs.experiment.questions import Fields
from jobs.files.given import Column, Lists, Rows, read_given
from jobs.files.layouts import read_teacher_files
from jobs.files.questions import read_questions
from jobs.files.trajectories import WhichTurns
from jobs.report.ranking import write_ranking
from jobs.results.ranking import Ranking, RankSettings, rank_answers
from jobs.run.progress import Terminal
from jobs.standalone.numbers import whole
from jobs.standalone.readings import (
    MEASURES,
    Reading,
    check_beside,
    clusters_in,
    joined_to,
    judged,
    kin_of,
    listed,
    read_answers_of,
    with_clusters,
    with_refused,
)
from jobs.standalone.score import ScoreOptions, check_cost, check_options, check_turns
from jobs.standalone.student import Student
from jobs.standalone.verify import check_method
from selection.costs import COSTS_OF_STATISTICS, MEASURE_OF, CostName
from selection.scoring import STATISTIC_NAMES

STATISTICS = "statistics.parquet"
SHOWN = 30  # teachers in the terminal's table
FEWEST_DRAWS = 200  # of the questions: fewer give no bounds of 95 %


def rank(
    student: Student | None,
    questions: Column | None = None,
    answers: Lists | Rows | None = None,
    *,
    cost: CostName = "scas",
    scas_lambda: float = 0.5,
    references: Column | None = None,
    clusters: Column | None = None,
    method: str = "math",
    families: Mapping[str, str] | None = None,
    student_family: str | None = None,
    teacher_models: Mapping[str, str] | None = None,
    chat_template: str | None = None,
    max_length: int = 4096,
    turns: WhichTurns = "last",
    cut: bool = False,
    dtype: str = "float32",
    device: str = "auto",
    measures: Sequence[str] = (),
    draws: int = 2000,
    seed: int = 0,
    verbose: bool = False,
) -> Ranking:
    """Teachers in the order of what their answers would cost this student to learn. One forward pass an
    answer, no Ray, no training.

    Args:
        student, questions, answers: as in `tutelage.score`, of two teachers or more. With `student` None,
            `answers` is what `tutelage.score` returned: nothing is computed again. It may have a column
            `verdict`.
        cost: the cost that the summary and the warnings speak of. All costs of one pass are ranked.
        scas_lambda: weight of the answer-question block of `scas`, 0 to 1.
        references: one entry a question, as in `tutelage.verify`. Rows may hold them instead.
        clusters: one entry a question: what it shares with others, such as the passage that it is about;
            empty for nothing. A cluster counts as one question. With `student` None a column `cluster`.
        method: how answers are checked against references: `math`, `exact`, `numeric`, `choice`; `none`
            checks nothing.
        families: teacher -> the family of its model, such as qwen3. Checkpoints and sizes of one model are
            one family.
        student_family: the student's.
        teacher_models: teacher -> directory or hub id of its model. Only its tokenizer is read: a teacher
            with the student's vocabulary or chat template is told of.
        chat_template, max_length, turns, cut, dtype, device: as in `tutelage.score`. With turns `each` a
            teacher's cost of a question is the mean over its turns.
        measures: further passes over the answers, each for its own costs: `sentences` (local_naturalness,
            also named LALP), `alone` (ifd), `steps` (aslec_drop, aslec_casl), `gradient` (gradient_norm; a
            backward pass each).
        draws, seed: of the resampled questions.
        verbose: show progress.

    Returns:
        A `Ranking`: `order`, `agreement`, `stability` and `teachers` are DataFrames, `warnings` says what
        speaks against believing the order. `jobs.report.ranking.write_ranking` writes its page.

    Raises:
        BadInput: fewer than two teachers, no question that all of them answered, an option out of range, a
            model that cannot be loaded.

    Example:
        >>> import tutelage
        >>> answers = {"ann": ["A: 3"], "bob": ["3, because 1 + 2 = 3"]}
        >>> tutelage.rank("path/to/student", ["1 + 2?"], answers).order  # doctest: +SKIP
    """
    check_cost("scas", scas_lambda)
    kin = kin_of(student, teacher_models or {}, chat_template)
    if not isinstance(families or {}, Mapping):
        raise BadInput("families are no dictionary", type(families).__name__, "teacher -> family", "")
    draws, seed = whole("draws", draws), whole("seed", seed, 0)
    max_length = whole("max_length", max_length, 1)
    settings = RankSettings(cost, scas_lambda, draws, seed, dict(families or {}), student_family, kin)
    check_rank(settings, method, None if student is None else measures)
    if student is None:
        scored = _of_scores(answers)
        return rank_answers(scored, _student_in(scored), settings)
    if answers is None:
        raise BadInput("no answers", "", "lists beside the questions, or rows that hold both", "")
    check_turns(turns, cut)
    check_beside(questions, references)
    check_beside(questions, clusters, "clusters")
    found, terminal = read_given(questions, answers, turns), Terminal(quiet=not verbose)
    reading = Reading(chat_template, dtype, device, max_length, cut)
    scores = read_answers_of(student, reading, found.in_order(), measures, terminal)
    known = {} if references is None else listed(references)
    scores = with_refused(judged(scores, found, known, method, terminal), found)
    if clusters is not None:
        named = {q: own[0] if own else "" for q, own in listed(clusters).items()}
        scores = with_clusters(scores, named)
    return rank_answers(scores, _name_of(student), settings)


def _of_scores(answers: object) -> pd.DataFrame:
    """Scored answers, as `tutelage.score` returned them.

    Raises:
        BadInput: it is no such table.
    """
    needed = ["question_id", "teacher", "state", *STATISTIC_NAMES]
    lacking = [name for name in needed if not isinstance(answers, pd.DataFrame) or name not in answers]
    if lacking:
        raise BadInput(
            "no student, and no scored answers",
            f"lacks {', '.join(lacking[:4])}",
            "the table that tutelage.score returned, or a student",
            "",
        )
    assert isinstance(answers, pd.DataFrame)
    if answers["teacher"].isna().any() or answers["question_id"].isna().any():
        raise BadInput("scored answers without a teacher or a question", "an empty cell", "names", "")
    return answers


def _student_in(scores: pd.DataFrame) -> str:
    """The student that statistics of an earlier ranking name. Empty if they name none."""
    names = scores["student"].unique().tolist() if "student" in scores else []
    return str(names[0]) if len(names) == 1 else ""


def _read_statistics(path: Path) -> pd.DataFrame:
    """The scored answers of an earlier ranking.

    Raises:
        BadInput: there is no such file.
    """
    try:
        return _of_scores(pd.read_parquet(path))
    except (OSError, pa.ArrowInvalid) as error:
        remedy = "the statistics.parquet of an earlier ranking"
        raise BadInput("no table of scored answers", path, remedy, "") from error


def _name_of(student: Student) -> str:
    return str(student) if isinstance(student, str | Path) else type(student[0]).__name__


def check_rank(settings: RankSettings, method: str, measures: Sequence[str] | None) -> None:
    """Refuse settings that no answer is scored for.

    Args:
        measures: those that are taken. None if the answers have been scored before.

    Raises:
        BadInput: with what is possible.
    """
    if unknown := [name for name in measures or () if name not in MEASURES]:
        raise BadInput("--measures", unknown[0], ", ".join(MEASURES), "")
    made = [cost for cost, measure in MEASURE_OF.items() if measures is None or measure in measures]
    if settings.primary not in (*COSTS_OF_STATISTICS, *made):
        remedy = f"--measures {MEASURE_OF[settings.primary]}" if settings.primary in MEASURE_OF else ""
        remedy = "" if settings.primary == "grace" else remedy  # a cost of a whole teacher
        raise BadInput("--cost", settings.primary, ", ".join((*COSTS_OF_STATISTICS, *made)), remedy)
    if method != "none":
        check_method(method)
    if method == "function":
        raise BadInput("--method", method, "math, exact, numeric, choice or none", "verify the answers first")
    if whole("--draws", settings.draws) < FEWEST_DRAWS:
        raise BadInput("--draws", settings.draws, f"{FEWEST_DRAWS} or more; 2000 is usual", "")
    whole("--seed", settings.seed, 0)


@dataclass(frozen=True)
class RankOptions:
    """The options of `tutelage rank`."""

    score: ScoreOptions
    settings: RankSettings
    method: str = "math"
    questions: str | None = None
    statistics: Path | None = None
    measures: tuple[str, ...] = ()
    cluster: str | None = None


def rank_files(options: RankOptions) -> None:
    """Score the answers, rank their teachers, and write the page with its tables.

    Raises:
        BadInput: an option out of its range, a defect of a file.
    """
    is_scored = options.statistics is not None
    check_cost("scas", options.settings.scas_lambda)
    check_rank(options.settings, options.method, None if is_scored else options.measures)
    if options.measures and options.score.address is not None:
        raise BadInput("--measures", "with --address", "one of them", "take the measures in this process")
    terminal, out = Terminal(), options.score.out
    if options.statistics is not None:
        refuse_unread(options)
        answers = _read_statistics(options.statistics)
        terminal.say(f"{options.statistics}: {len(answers):,} answers")
    else:
        answers = _scored(options, terminal).assign(student=options.score.student)
        out.mkdir(parents=True, exist_ok=True)
        answers.to_parquet(out / STATISTICS, index=False)
    ranking = rank_answers(answers, _student_in(answers), options.settings)
    paths = write_ranking(ranking, Place(str(out)))
    shared = f"{ranking.questions:,} questions that all of them answered"
    terminal.say(f"teachers by {ranking.settings.primary}, on {shared}")
    terminal.show(as_table(ranking))
    if len(ranking.teachers) > SHOWN:
        terminal.say(f"and {len(ranking.teachers) - SHOWN} more teachers, in order.csv")
    for line in ranking.warnings:
        terminal.say(f"beware: {line}")
    terminal.say(f"wrote {', '.join(str(p) for p in paths)}")


def _scored(options: RankOptions, terminal: Terminal) -> pd.DataFrame:
    """The statistics and verdicts of all answers in files."""
    if not (options.score.student and options.score.answers):
        got = "no student" if options.score.answers else "no answers"
        raise BadInput("nothing to rank", got, "--student and --answers, or --statistics", "")
    check_options(options.score)
    on_broken = terminal.say if options.score.skip_broken_lines else None
    s = options.score
    found = read_teacher_files(s.answers, on_broken, s.limit, s.turns, s.answer_field)
    for line in [str(found), *found.notes]:
        terminal.say(line)
    if len({row.teacher for row in found.rows}) < 2:
        names = ", ".join(sorted({row.teacher for row in found.rows})) or "nobody"
        raise BadInput("nothing to rank", f"answers of {names}", "answers of two teachers or more", "")
    references: dict[str, tuple[str, ...]] = {}
    clusters: dict[str, str] = {}
    if options.questions is not None:
        read = read_questions(options.questions, Fields(cluster=options.cluster), on_broken=on_broken)
        terminal.say(str(read))
        joined, line = joined_to(found, read.questions)
        if line:
            terminal.say(line)
        references = {name: () if own is None else own.references for name, own in joined.items()}
        clusters = {name: own.cluster for name, own in joined.items() if own is not None}
    if options.cluster is not None and options.questions is None:
        clusters = clusters_in(found, options.cluster)
    if options.score.address is None:
        o = options.score
        how = Reading(o.chat_template, o.dtype, o.device, o.max_length, o.cut)
        scores = read_answers_of(o.student, how, found.in_order(), options.measures, terminal)
    else:
        from jobs.standalone.cluster import score_on_cluster

        scores = score_on_cluster(options.score, found.in_order(), terminal)
    scores = with_refused(judged(scores, found, references, options.method, terminal), found)
    return scores if options.cluster is None else with_clusters(scores, clusters)


def refuse_unread(options: RankOptions) -> None:
    """Refuse options that do nothing where the answers have been scored before.

    Raises:
        BadInput: names the first.
    """
    o = options.score
    given = {
        "--answers": o.answers,
        "--student": o.student and not options.settings.kin,
        "--measures": options.measures,
        "--questions": options.questions,
        "--cluster": options.cluster,
        "--turns": o.turns != "last",
        "--cut": o.cut,
        "--answer-field": o.answer_field,
        "--limit": o.limit is not None,
        "--address": o.address,
        "--chat-template": o.chat_template,
        "--dtype": o.dtype != "float32",
        "--device": o.device != "auto",
        "--max-length": o.max_length != 4096,
        "--skip-broken-lines": o.skip_broken_lines,
    }
    name = next((name for name, value in given.items() if value), None)
    if name is not None:
        raise BadInput(name, "with --statistics", "one of them", "the answers have been scored before")


def as_table(ranking: Ranking) -> Table:
    """The order of the primary cost for the terminal."""
    shown = Table()
    for column in (
        "place",
        "teacher",
        ranking.settings.primary,
        "95 %",
        "first in",
        "behind the first",
        "tokens",
        "right",
    ):
        shown.add_column(column)
    about = ranking.teachers.set_index("teacher")
    for _, r in ranking.primary.head(SHOWN).iterrows():
        right, behind = about.loc[r["teacher"], "right"], "–"
        if r["place"] > 1:
            behind = f"{r['behind']:.3g} ({r['behind_low']:.3g} to {r['behind_high']:.3g})"
        shown.add_row(
            str(r["place"]),
            str(r["teacher"]),
            f"{r['mean']:.4g}",
            f"{r['low']:.4g} to {r['high']:.4g}",
            "" if r["is_first"] != r["is_first"] else f"{r['is_first']:.0%}",
            behind,
            f"{about.loc[r['teacher'], 'tokens']:,.0f}",
            "" if pd.isna(right) else f"{right:.0%}",
        )
    return shown


def models_of(named: Sequence[str]) -> dict[str, str]:
    """Models given as TEACHER=PATH. A path may hold an equals sign, a teacher's name may not.

    Raises:
        BadInput: one is not of that form.

    >>> models_of(["ann=/models/run=3"])
    {'ann': '/models/run=3'}
    """
    return {one.partition("=")[0]: one.partition("=")[2] for one in named if families_of([one])}


def families_of(named: Sequence[str]) -> dict[str, str]:
    """Families given as TEACHER=FAMILY.

    Raises:
        BadInput: one is not of that form.

    >>> families_of(["ann=qwen3", "a=b=c"])
    {'ann': 'qwen3', 'a=b': 'c'}
    """
    found = {}
    for one in named:
        teacher, equals, family = one.rpartition("=")
        if not equals or not teacher or not family:
            raise BadInput("--family or --teacher-model", one, "TEACHER=NAME, such as ann=qwen3", "")
        found[teacher] = family
    return found
