"""Stages alone, on the user's own files: `tutelage score`, `rank`, `select`, `verify` and `audit`."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.destinations import check_out_file, check_out_folder
from jobs.doors.options import Limit

Student = Annotated[str, typer.Option(help="Directory or hub id of the student.")]
ChatTemplate = Annotated[str | None, typer.Option(help="A Jinja file, or the word plain.")]
TeacherFiles = Annotated[
    str,
    typer.Option(
        help="Folder with a file or a folder per teacher (JSONL, JSON or Parquet, in any of the field's "
        "layouts), or one file, saved data set or hub:OWNER/NAME whose rows name their teachers."
    ),
]
QuestionWeight = Annotated[
    float,
    typer.Option(
        "--lambda",
        "--lambda-scas",
        help="Weight of the answer-question block, 0 to 1; the authors' program has the longer name.",
    ),
]
AnswerField = Annotated[
    str | None, typer.Option(help="The column of the answers, as a dotted path, if it has no usual name.")
]
Turns = Annotated[
    str,
    typer.Option(
        help="Which turns of the assistant are an answer, in rows of several turns: last, all, or each alone."
    ),
]
Cut = Annotated[
    bool,
    typer.Option(
        "--cut", help="With --turns all: cut a longer answer after the last turn of the assistant that fits."
    ),
]
KeepGoodLines = Annotated[
    bool, typer.Option("--skip-broken-lines", help="Keep the good lines of a file with broken ones.")
]
MostTokens = Annotated[int, typer.Option(help="Longer conversations get no score.")]
DType = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
Address = Annotated[
    str | None,
    typer.Option(help="A Ray cluster's address, or auto: score there. Without it, in this process."),
]
Kept = Annotated[str, typer.Option(help="On a cluster: where statistics are kept and found again.")]
Workers = Annotated[int, typer.Option(help="On a cluster: the most actors that hold the student.")]
Gpus = Annotated[float, typer.Option(help="On a cluster: GPUs of each actor.")]
Device = Annotated[str, typer.Option(help="cpu or cuda; auto takes a GPU when there is one.")]


def score(
    student: Student,
    answers: TeacherFiles,
    out: Annotated[Path, typer.Option(help="Folder for <teacher>_scas_scores.jsonl.")],
    scas_lambda: QuestionWeight = 0.5,
    compat: Annotated[
        str, typer.Option(help="ours, or reference to reproduce the authors' program.")
    ] = "ours",
    target_layer: Annotated[
        str | None, typer.Option(help="Dotted name of the module whose output is h_t.")
    ] = None,
    chat_template: ChatTemplate = None,
    dtype: DType = "float32",
    device: Device = "auto",
    max_length: MostTokens = 4096,
    turns: Turns = "last",
    answer_field: AnswerField = None,
    cut: Cut = False,
    limit: Limit = None,
    skip_broken_lines: KeepGoodLines = False,
    address: Address = None,
    store: Kept = "store",
    workers: Workers = 1,
    num_gpus: Gpus = 0.0,
) -> None:
    """Score your own answers under your own student."""
    check_out_folder(out, [answers, student])
    from jobs.standalone.score import ScoreOptions, score_files

    score_files(
        ScoreOptions(
            student=student,
            answers=answers,
            out=out,
            scas_lambda=scas_lambda,
            compat=compat,
            target_layer=target_layer,
            chat_template=chat_template,
            dtype=dtype,
            device=device,
            max_length=max_length,
            limit=limit,
            skip_broken_lines=skip_broken_lines,
            address=address,
            store=store,
            workers=workers,
            num_gpus=num_gpus,
            turns=turns,  # type: ignore[arg-type]
            answer_field=answer_field,
            cut=cut,
        )
    )


def rank(
    out: Annotated[Path, typer.Option(help="Folder for ranking.html and its tables.")],
    answers: TeacherFiles = "",
    student: Annotated[str, typer.Option(help="Directory or hub id of the student.")] = "",
    questions: Annotated[
        str | None, typer.Option(help="File with the references, where the answers' own rows have none.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Column of --questions, or of the answers, that names what questions share, such as a "
            "passage: a cluster counts as one question."
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help="How answers are checked: math, exact, numeric, choice, or none.")
    ] = "math",
    cost: Annotated[str, typer.Option(help="The cost that the summary speaks of.")] = "scas",
    family: Annotated[
        list[str] | None,
        typer.Option(help="TEACHER=FAMILY of its model, such as ann=qwen3; once for each teacher."),
    ] = None,
    student_family: Annotated[str | None, typer.Option(help="Family of the student's model.")] = None,
    teacher_model: Annotated[
        list[str] | None,
        typer.Option(
            help="TEACHER=PATH of its model, whose tokenizer is compared with the student's; once for each."
        ),
    ] = None,
    statistics: Annotated[
        Path | None,
        typer.Option(help="statistics.parquet of an earlier ranking: nothing is scored again."),
    ] = None,
    scas_lambda: QuestionWeight = 0.5,
    chat_template: ChatTemplate = None,
    dtype: DType = "float32",
    device: Device = "auto",
    max_length: MostTokens = 4096,
    turns: Turns = "last",
    answer_field: AnswerField = None,
    cut: Cut = False,
    limit: Limit = None,
    skip_broken_lines: KeepGoodLines = False,
    measures: Annotated[
        str,
        typer.Option(
            help="Further passes, with commas: sentences (for local_naturalness), alone (ifd), steps "
            "(aslec_drop, aslec_casl), gradient (gradient_norm)."
        ),
    ] = "",
    draws: Annotated[int, typer.Option(help="Draws of the questions, for intervals.")] = 2000,
    seed: int = 0,
    address: Address = None,
    store: Kept = "store",
    workers: Workers = 1,
    num_gpus: Gpus = 0.0,
) -> None:
    """Rank teachers for your student before anything is trained, and say what speaks against the order."""
    check_out_folder(out, [one for one in (answers, student) if one])
    from jobs.results.ranking import RankSettings
    from jobs.standalone.rank import RankOptions, families_of, models_of, rank_files
    from jobs.standalone.readings import kin_of
    from jobs.standalone.score import ScoreOptions

    scoring = ScoreOptions(
        student=student,
        answers=answers,
        out=out,
        scas_lambda=scas_lambda,
        compat="ours",
        target_layer=None,
        chat_template=chat_template,
        dtype=dtype,
        device=device,
        max_length=max_length,
        limit=limit,
        skip_broken_lines=skip_broken_lines,
        address=address,
        store=store,
        workers=workers,
        num_gpus=num_gpus,
        turns=turns,  # type: ignore[arg-type]
        answer_field=answer_field,
        cut=cut,
    )
    models = models_of(teacher_model or [])
    kin = kin_of(student, models, chat_template)
    named_families = families_of(family or [])
    settings = RankSettings(cost, scas_lambda, draws, seed, named_families, student_family, kin)
    named = tuple(name.strip() for name in measures.split(",") if name.strip())
    rank_files(RankOptions(scoring, settings, method, questions, statistics, named, cluster))


def audit(
    student: Student,
    answers: TeacherFiles,
    out: Annotated[
        Path,
        typer.Option(
            help="JSON file for the correlations; a Parquet file with every answer is written beside it."
        ),
    ],
    questions: Annotated[int, typer.Option(help="Questions in the sample, drawn by the seed.")] = 200,
    seed: int = 0,
    chat_template: ChatTemplate = None,
    device: Device = "auto",
    max_length: Annotated[int, typer.Option(help="Longer conversations are left out.")] = 4096,
    answer_field: AnswerField = None,
) -> None:
    """Audit the costs: do they rank answers as their exact gradient norms do? One backward pass an answer, in
    float32.
    """
    for written in (out, out.with_suffix(".parquet") if out.name else out):
        check_out_file(written, [answers, student])
    from jobs.standalone.audit import AuditOptions, audit_files

    audit_files(
        AuditOptions(
            student=student,
            answers=answers,
            out=out,
            questions=questions,
            seed=seed,
            chat_template=chat_template,
            device=device,
            max_length=max_length,
            answer_field=answer_field,
        )
    )


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
    check_out_folder(out, [scores])
    from jobs.standalone.select import SelectOptions, select_from_files

    select_from_files(
        SelectOptions(
            scores=scores,
            out=out,
            score_key=score_key,
            num_groups=num_groups,
            selected_group=selected_group,
            seed=seed,
            compat=compat,
        )
    )


def verify(
    answers: Annotated[
        str, typer.Option(help="JSONL, JSON or Parquet with an answer and a reference in each row.")
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
    only_correct: Annotated[
        bool, typer.Option("--only-correct", help="Write only the rows whose answer is correct.")
    ] = False,
) -> None:
    """Verify answers in your own file: correct, wrong, unparsed, timed_out."""
    check_out_file(out, [Path(answers)])
    from jobs.standalone.verify import VerifyOptions, verify_file

    verify_file(
        VerifyOptions(
            answers=answers,
            out=out,
            method=method,
            answer_field=answer_field,
            reference_field=reference_field,
            pattern=pattern,
            function=function,
            timeout_s=timeout_s,
            skip_broken_lines=skip_broken_lines,
            only_correct=only_correct,
        )
    )
