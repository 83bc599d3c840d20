"""Reading answers from files. A file is read once, and its answers are sorted into slices, in the columns
that all teachers' answers have. The stage is identified by the file's content and by the questions."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import BadInput
from cluster.models.messages import Prompt
from cluster.storage import is_uri
from jobs.experiment.questions import Fields
from jobs.experiment.teachers import FileTeacher
from jobs.files.answers import FoundAnswer, ReadAnswers, each_answer_of
from jobs.files.loaded import HUB
from jobs.files.questions import Question
from jobs.files.refusals import NO_ANSWER, NotUnderstood
from jobs.files.rows import content_of
from jobs.run.keys import question_key
from jobs.run.run import Planned, Run
from jobs.run.slices import Sliced, Task, do_tasks, slice_of
from jobs.run.store import Stage
from jobs.run.tables import unusual
from jobs.stages.questions import QuestionIndex, body_digest, index_of

VERSION = 3
TAKE = "take"
CHUNK, CHUNK_CHARACTERS = 100_000, 2**27  # the most answers, and characters, that are sorted at once
MOST_BROKEN = 100  # how many broken lines are printed
SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("key", pa.binary(8)),
        ("sample", pa.int64()),
        ("text", pa.large_string()),
        ("tool_calls", pa.string()),
        ("finish", pa.string()),
        ("error", pa.string()),
    ]
)
TURNS = pa.field("turns", pa.large_string())  # a further column, of answers of many turns
SLICES = b"slices"  # in a chunk's metadata: the slice of each row group


@dataclass(frozen=True)
class Taken:
    """The answers of a file teacher, by slice.

    Attributes:
        held: in a plan, which writes nothing, the answers in memory.
        only: the ids of the questions whose answers are used, if not all are.
    """

    teacher: str
    stage: Stage
    held: pd.DataFrame | None = None
    only: frozenset[str] | None = None

    def read(self, number: int) -> pd.DataFrame:
        """One slice's answers, in the file's order."""
        every = self._every(number)
        return every if self.only is None else every[every["question_id"].isin(self.only)]

    def _every(self, number: int) -> pd.DataFrame:
        if self.held is not None:
            return self.held
        names = list(self.stage.manifest()["parts"])
        for name in names:
            self.stage.check(name)
        tables = [read_group(self.stage, name, number) for name in names]
        return pa.concat_tables(tables).to_pandas()


def read_group(stage: Stage, part: str, number: int) -> pa.Table:
    """Read the rows of one slice from a chunk.

    Raises:
        BadInput: the chunk is damaged or missing.
    """
    system, path = stage.part(part).opened()
    try:
        with system.open_input_file(path) as opened:
            file = pq.ParquetFile(opened)
            groups = json.loads(file.schema_arrow.metadata[SLICES])
            wanted = [place for place, own in enumerate(groups) if own == number]
            return file.read_row_groups(wanted, use_threads=False).replace_schema_metadata(None)
    except (pa.ArrowInvalid, FileNotFoundError) as error:
        raise BadInput(
            f"the part {stage.part(part)} is damaged or gone",
            str(error)[:120],
            "a Parquet file",
            f"remove {stage.directory} and run again: the file is read again",
        ) from error


@dataclass(frozen=True)
class TakeFile:
    """Runs in a worker. Reads a file and writes its answers in chunks, each sorted by slice. A file with the
    answers of several teachers is read in one pass.

    Attributes:
        stages: for each teacher's name in the file, the stage that gets its answers. The name None stands for
            all rows and is then the only one.
        turns: the turns of the assistant that an answer is made of: last or all.
    """

    path: str
    fields: Fields
    turns: Literal["last", "all"]
    stages: Mapping[str | None, Stage]
    questions: Sliced
    skip_broken: bool

    def chunks(
        self, told: Mapping[str | None, ReadAnswers], broken: list[str]
    ) -> Iterator[tuple[str | None, pa.Table]]:
        """Read the answers in chunks, each with its teacher's name in the file. A teacher's answers stay in
        the file's order. Answers to unknown questions are kept, and the ledger counts them.
        """
        index, on_broken = index_of(self.questions), broken.append if self.skip_broken else None
        held: dict[str | None, list[tuple[Any, ...]]] = {whose: [] for whose in told}
        sizes, others = dict.fromkeys(told, 0), dict.fromkeys(told, 0)
        check = CheckQuestion(index, self.path, self.turns == "all")
        for whose, answer in each_answer_of(self.path, self.fields, on_broken, told, check, self.turns):
            rows = rows_of(answer, index)
            others[whose] += not answer.problem and all(identity not in index.places for identity, *_ in rows)
            held[whose] += rows
            sizes[whose] += len(answer.text) + len(answer.turns)
            if len(held[whose]) * len(told) >= CHUNK or sizes[whose] * len(told) >= CHUNK_CHARACTERS:
                yield whose, table_of(held[whose], self.turns)
                held[whose], sizes[whose] = [], 0
        for whose, rows in held.items():
            if others[whose]:
                told[whose].notes.append(
                    f"{others[whose]:,} of these answers are to no question of this run, by id or by text"
                )
            if rows or not told[whose].count:
                yield whose, table_of(rows, self.turns)

    def __call__(self) -> None:
        told = {whose: ReadAnswers(self.path) for whose in self.stages}
        parts: dict[str | None, list[str]] = {whose: [] for whose in told}
        broken: list[str] = []
        for whose, chunk in self.chunks(told, broken):
            parts[whose].append(f"{len(parts[whose]):05d}")
            write_chunk(self.stages[whose], parts[whose][-1], chunk, self.questions.count)
        for whose, stage in self.stages.items():
            own = told[whose]
            stage.finish(
                parts[whose],
                about={"told": [str(own), *own.notes], "broken": first_broken(broken)},
                answers=own.count,
            )


def first_broken(broken: Sequence[str]) -> list[str]:
    """The lines that a run prints about broken lines that were left out: the first ones, and how many more
    there are.
    """
    more = [f"left out {len(broken) - MOST_BROKEN:,} further broken lines"] if broken[MOST_BROKEN:] else []
    return [*broken[:MOST_BROKEN], *more]


def table_of(rows: Sequence[tuple[Any, ...]], turns: str) -> pa.Table:
    """Convert rows to an Arrow table. The turns before an answer's last one are a column where they are
    taken.
    """
    schema = SCHEMA if turns == "last" else SCHEMA.append(TURNS)
    columns = list(zip(*rows, strict=True)) if rows else [() for _ in [*SCHEMA, TURNS]]
    arrays = [pa.array(own, field.type) for own, field in zip(columns, schema, strict=False)]
    return pa.Table.from_arrays(arrays, schema=schema)


def rows_of(answer: FoundAnswer, index: QuestionIndex) -> list[tuple[Any, ...]]:
    """The rows of an answer, one for each question that it belongs to. An answer that cannot be used keeps
    its row, with the reason.
    """
    is_refused = answer.problem not in ("", NO_ANSWER)  # an empty answer gets the state `empty` in the ledger
    said = ("", "") if answer.problem else (answer.text, answer.calls)
    turns = "" if answer.problem else answer.turns
    finish = "refused" if is_refused else "length" if answer.is_cut else "stop"
    found = (answer.sample, *said, finish, answer.problem, turns)
    return [(identity, key_of(identity, index), *found) for identity in ids_of(answer, index)]


def key_of(identity: str, index: QuestionIndex) -> bytes:
    """A question's key. For an unknown question it is a digest of its id."""
    place = index.places.get(identity)
    return (
        hashlib.sha256(identity.encode("utf-8", "replace")).digest()[:8]
        if place is None
        else index.keys[place]
    )


def write_chunk(stage: Stage, part: str, chunk: pa.Table, count: int) -> None:
    """Write a chunk, with one row group for each slice that has rows in it."""
    slices = np.array([slice_of(key, count) for key in chunk["key"].to_pylist()], dtype=np.int64)
    order = np.argsort(slices, kind="stable")
    table = chunk.take(order)
    own, starts = np.unique(slices[order], return_index=True)
    ends = [*starts[1:], len(order)][: len(starts)]  # an empty chunk has no slices
    schema = table.schema.with_metadata({SLICES: json.dumps(own.tolist()).encode()})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=["finish", "error"]) as writer:
        for start, end in zip(starts.tolist(), ends, strict=True):
            writer.write_table(table.slice(start, end - start))
    stage.part(part).write_bytes(sink.getvalue().to_pybytes())


def take_stage(run: Run, teacher: FileTeacher, content: str, questions: Sliced, skip_broken: bool) -> Stage:
    """The stage that holds a file's answers. It is identified by the file's content, by how the file is read
    and by the questions.
    """
    fields = {name: value for name, value in teacher.fields.model_dump().items() if value is not None}
    config = {"fields": fields, "rows_of": teacher.rows_of, "skip_broken": skip_broken}
    config |= unusual({"turns": teacher.turns}, {"turns": "last"})
    return run.store.stage(TAKE, VERSION, config, {"file": content, "questions": questions.stage.id})


def take_files(
    run: Run, teachers: Sequence[FileTeacher], questions: Sliced, skip_broken: bool
) -> list[Taken]:
    """Read those teachers' files that were not read with these questions before.

    Raises:
        BadInput: a line is broken and `skip_broken` is not set, or a teacher has no usable row.
    """
    contents = {path: content_of(path) for path in {t.path for t in teachers}}
    stages = [take_stage(run, t, contents[t.path], questions, skip_broken) for t in teachers]
    for teacher, stage in zip(teachers, stages, strict=True):
        run.note(TAKE, teacher.name, stage)
    every = list(zip(teachers, stages, strict=True))
    if run.mode == "plan":
        return [taken_in_plan(run, *one, questions, skip_broken) for one in every]
    with run.claimed(stages):
        left = [one for one in every if not one[1].is_finished] if run.mode == "make" else []
        files = files_of(left, questions, skip_broken)
        tasks = [(f"{number} {file.path}", file) for number, file in enumerate(files)]
        there, here = (
            [(name, Task(f)) for name, f in tasks if is_for_workers(run, f) == wanted]
            for wanted in (True, False)
        )
        do_tasks(run, TAKE, "files", there)
        do_tasks(run, TAKE, "files", here, here=True)
    told: set[str] = set()
    for teacher, stage in every:
        about = stage.manifest()["about"]
        for line in [*about["broken"], *(f"{teacher.name}: {line}" for line in about["told"])]:
            if line not in told:  # several teachers may share a file with broken lines
                run.terminal.say(line)
            told.add(line)
    return [Taken(teacher.name, stage) for teacher, stage in every]


def files_of(
    left: Sequence[tuple[FileTeacher, Stage]], questions: Sliced, skip_broken: bool
) -> list[TakeFile]:
    """The files to read. Teachers share one reading if each has named rows in the same file and uses the same
    fields.
    """
    groups: dict[tuple[str, str, bool, str], dict[str | None, Stage]] = {}
    first: dict[tuple[str, str, bool, str], FileTeacher] = {}
    for teacher, stage in left:
        key = (teacher.path, teacher.fields.model_dump_json(), teacher.rows_of is None, teacher.turns)
        groups.setdefault(key, {})[teacher.rows_of] = stage
        first[key] = teacher
    return [
        TakeFile(first[key].path, first[key].fields, first[key].turns, own, questions, skip_broken)
        for key, own in groups.items()
    ]


def is_for_workers(run: Run, file: TakeFile) -> bool:
    """Whether workers read a file. A small run reads it in its own process. So does a run on a cluster of
    several machines if the file may exist on this machine only.
    """
    if file.questions.count == 1:
        return False
    return len(run.host.cluster.nodes) == 1 or is_uri(file.path) or file.path.startswith(HUB)


def taken_in_plan(
    run: Run, teacher: FileTeacher, stage: Stage, questions: Sliced, skip_broken: bool
) -> Taken:
    """Read a file in a plan. If the run has one slice, the whole file is read into memory. Otherwise the plan
    only notes it.
    """
    is_left = questions.count > 1 and not stage.is_finished
    left = "a file to read" if is_left else None
    run.planned.append(Planned("generate", teacher.name, left, "workers" if is_left else "this process"))
    if stage.is_finished or questions.count > 1:
        return Taken(teacher.name, stage)
    (file,) = files_of([(teacher, stage)], questions, skip_broken)
    told = ReadAnswers(teacher.path)
    table = pa.concat_tables([chunk for _, chunk in file.chunks({teacher.rows_of: told}, [])])
    for line in [str(told), *told.notes]:
        run.terminal.say(f"{teacher.name}: {line}")
    return Taken(teacher.name, stage, table.to_pandas())


def ids_of(answer: FoundAnswer, index: QuestionIndex) -> list[str]:
    """The ids of the questions that an answer belongs to. First its own id, if a question has it. Else all
    questions with the same turns. Else all questions that differ from it in the system text alone, if they
    share one system text. Else its own id, as an unknown question.
    """
    if answer.prompt is None or answer.question_id in index.places:
        return [answer.question_id]
    exact = index.by_key.get(question_key(answer.prompt))
    if exact is not None:
        return exact
    return [answer.question_id] if len(near := near_to(answer.prompt, index)) != 1 else near[0]


def near_to(prompt: Prompt, index: QuestionIndex) -> list[list[str]]:
    """The ids of the questions whose turns without the system turn are equal to these. Ids are grouped by
    system text.
    """
    found: dict[bytes, list[str]] = {}
    for identity in index.by_body.get(body_digest(prompt), ()):
        found.setdefault(index.keys[index.places[identity]], []).append(identity)
    return list(found.values())


@dataclass(frozen=True)
class CheckQuestion:
    """Refuses an answer whose file shows another question than ours. The system text may differ, because each
    teacher may have its own.
    """

    index: QuestionIndex
    path: str
    with_tools: bool = False

    def __call__(self, answer: FoundAnswer) -> None:
        """Check an answer's question.

        Raises:
            NotUnderstood: our question with this id has other turns, or (`with_tools`) other tools, of which
                the student would be shown none. Or several of our questions differ from
                the answer's in the system text alone, so it is unknown which one it belongs to.
        """
        if answer.prompt is None:
            return
        place = self.index.places.get(answer.question_id)
        if place is not None:
            if body_digest(answer.prompt) != self.index.bodies[place]:
                raise AnotherText(answer, self.index.question(answer.question_id), self.path)
            if self.with_tools and answer.prompt.tools:
                refuse_other_tools(answer.prompt, self.index.question(answer.question_id).prompt)
        elif question_key(answer.prompt) not in self.index.by_key:
            near = near_to(answer.prompt, self.index)
            if len(near) > 1:
                raise OneOfSeveral([identity for own in near for identity in own])


def refuse_other_tools(prompt: Prompt, known: Prompt) -> None:
    """Refuse a trajectory with tools that our question does not offer: the student is shown our question's.

    Raises:
        NotUnderstood: the tools differ.
    """
    if not known.tools or json.loads(prompt.tools) != json.loads(known.tools):
        raise NotUnderstood("tools that the question does not offer: put them into the questions' file too")


class AnotherText(NotUnderstood):
    """A question in the file has the id of one of ours, and its turns differ."""

    def __init__(self, answer: FoundAnswer, known: Question, path: str) -> None:
        super().__init__("the question with this id has another text")
        text = answer.prompt.text if answer.prompt is not None else ""
        self.what = f"question {known.id} has two different texts"
        self.got = f"{text[:50]!r} in {path}, {known.text[:50]!r} among the questions"
        turns = answer.prompt.turns if answer.prompt is not None else ()
        self.has_many = any(turn.role == "assistant" for turn in turns)

    def stopping(self, where: str) -> BadInput:
        remedy = "these are different questions: give them different ids"
        if self.has_many:
            remedy = "if its answers have many turns, set the teacher's turns: all; else give them other ids"
        return BadInput(self.what, self.got, "one text for each id", remedy)


class OneOfSeveral(NotUnderstood):
    """An answer has no known id, and its question's text belongs to several questions with different system
    texts.
    """

    def __init__(self, ids: list[str]) -> None:
        super().__init__("a question that is one of several, which differ in their system text")
        self.ids = ids

    def stopping(self, where: str) -> BadInput:
        what = "an answer may belong to several questions, which differ in their system text"
        return BadInput(what, ", ".join(self.ids[:4]), "the question's id, or its system text", "")
