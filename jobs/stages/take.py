"""Taking answers that exist: a file teacher's, read once and sorted into slices, in the columns of others'
answers. They are known by the file's content and by the questions they were matched with.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import BadInput
from cluster.storage import is_uri
from jobs.experiment.teachers import FileTeacher
from jobs.files.answers import FoundAnswer, ReadAnswers, each_answer
from jobs.files.rows import HUB, content_of
from jobs.run.keys import question_key
from jobs.run.run import Planned, Run
from jobs.run.slices import Sliced, Task, do_tasks, slice_of
from jobs.run.store import Stage
from jobs.stages.answers import whole_characters
from jobs.stages.questions import QuestionIndex, body_digest, index_of

VERSION = 1
TAKE = "take"
CHUNK, CHUNK_CHARACTERS = 100_000, 2**27  # answers that are sorted at once, and what they may say
MOST_BROKEN = 100  # broken lines that are named
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
SLICES = b"slices"  # in a chunk's metadata: which slice each row group is of


@dataclass(frozen=True)
class Taken:
    """A file teacher's answers by slice.

    Attributes:
        held: the answers themselves, in a plan, which writes nothing.
    """

    teacher: str
    stage: Stage
    held: pd.DataFrame | None = None

    def read(self, number: int) -> pd.DataFrame:
        """One slice's answers, in the file's order."""
        if self.held is not None:
            return self.held
        tables = [read_group(self.stage, name, number) for name in self.stage.manifest()["parts"]]
        return pa.concat_tables(tables).to_pandas()


def read_group(stage: Stage, part: str, number: int) -> pa.Table:
    """A chunk's rows of one slice."""
    system, path = stage.part(part).opened()
    with system.open_input_file(path) as opened:
        file = pq.ParquetFile(opened)
        groups = json.loads(file.schema_arrow.metadata[SLICES])
        wanted = [place for place, own in enumerate(groups) if own == number]
        return file.read_row_groups(wanted, use_threads=False).replace_schema_metadata(None)


@dataclass(frozen=True)
class TakeFile:
    """In a worker: reads a teacher's file and writes its answers, sorted into slices chunk by chunk."""

    teacher: FileTeacher
    questions: Sliced
    stage: Stage
    skip_broken: bool

    def chunks(self, told: ReadAnswers, broken: list[str]) -> Iterator[pa.Table]:
        """The answers in chunks, in the file's order; answers to unknown questions are kept, and counted by
        the ledger.
        """
        index, teacher = index_of(self.questions), self.teacher
        on_broken = broken.append if self.skip_broken else None
        rows: list[tuple[Any, ...]] = []
        size = 0
        for answer in each_answer(told, teacher.fields, on_broken, rows_of=teacher.rows_of):
            rows += rows_of(answer, index, told.path)
            size += len(answer.text)
            if len(rows) >= CHUNK or size >= CHUNK_CHARACTERS:
                yield table_of(rows)
                rows, size = [], 0
        yield table_of(rows)

    def __call__(self) -> None:
        told, broken, parts = ReadAnswers(self.teacher.path), list[str](), list[str]()
        for chunk in self.chunks(told, broken):
            parts.append(f"{len(parts):05d}")
            write_chunk(self.stage, parts[-1], chunk, self.questions.count)
        self.stage.finish(parts, about={"lines": lines_of(self.teacher, told, broken)}, answers=told.count)


def table_of(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Rows as a table."""
    columns = zip(*rows, strict=True) if rows else [[] for _ in SCHEMA]
    arrays = [pa.array(own, field.type) for own, field in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def lines_of(teacher: FileTeacher, told: ReadAnswers, broken: Sequence[str]) -> list[str]:
    """What a run prints of a file."""
    more = [f"left out {len(broken) - MOST_BROKEN:,} further broken lines"] if broken[MOST_BROKEN:] else []
    return [*broken[:MOST_BROKEN], *more, f"{teacher.name}: {told}"]


def rows_of(answer: FoundAnswer, index: QuestionIndex, path: str) -> list[tuple[Any, ...]]:
    """An answer as a row of the table of each question that it is to."""
    found = (
        answer.sample,
        whole_characters(answer.text),
        whole_characters(answer.calls),
        "refused" if answer.problem else "stop",
        answer.problem,
    )
    refuse_another_text(answer, index, path)
    ids = ids_of(answer, index)
    return [(identity, key_of(identity, index), *found) for identity in ids]


def key_of(identity: str, index: QuestionIndex) -> bytes:
    """A question's key; for one that is not ours a digest of its id."""
    place = index.places.get(identity)
    return (
        hashlib.sha256(identity.encode("utf-8", "replace")).digest()[:8]
        if place is None
        else index.keys[place]
    )


def write_chunk(stage: Stage, part: str, chunk: pa.Table, count: int) -> None:
    """Write a chunk with a row group for each slice that it has rows of."""
    slices = np.array([slice_of(key, count) for key in chunk["key"].to_pylist()], dtype=np.int64)
    order = np.argsort(slices, kind="stable")
    table = chunk.take(order)
    own, starts = np.unique(slices[order], return_index=True)
    ends = [*starts[1:], len(order)]
    schema = SCHEMA.with_metadata({SLICES: json.dumps(own.tolist()).encode()})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=["finish", "error"]) as writer:
        for start, end in zip(starts.tolist(), ends, strict=True):
            writer.write_table(table.slice(start, end - start))
    stage.part(part).write_bytes(sink.getvalue().to_pybytes())


def take_stage(run: Run, teacher: FileTeacher, questions: Sliced, skip_broken: bool) -> Stage:
    """The stage that holds a file's answers: by the file's content and how it is read."""
    fields = {name: value for name, value in teacher.fields.model_dump().items() if value is not None}
    config = {"fields": fields, "rows_of": teacher.rows_of, "skip_broken": skip_broken}
    content = {"file": content_of(teacher.path), "questions": questions.stage.id}
    return run.store.stage(TAKE, VERSION, config, content)


def take_files(
    run: Run, teachers: Sequence[FileTeacher], questions: Sliced, skip_broken: bool
) -> list[Taken]:
    """Read the files of teachers that nobody has read with these questions.

    Raises:
        BadInput: a broken line, or a question with another text than ours.
    """
    files = [
        TakeFile(t, questions, take_stage(run, t, questions, skip_broken), skip_broken) for t in teachers
    ]
    for file in files:
        run.note(TAKE, file.teacher.name, file.stage)
    if run.mode == "plan":
        return [taken_in_plan(run, file) for file in files]
    with run.claimed([file.stage for file in files]):
        left = {f.stage.id: f for f in files if not f.stage.is_finished} if run.mode == "make" else {}
        there, here = split_by_place(run, list(left.values()))
        do_tasks(run, TAKE, "files", [(f.teacher.name, Task(f)) for f in there])
        do_tasks(run, TAKE, "files", [(f.teacher.name, Task(f)) for f in here], here=True)
    for file in files:
        for line in file.stage.manifest()["about"]["lines"]:
            run.terminal.say(line)
    return [Taken(file.teacher.name, file.stage) for file in files]


def split_by_place(run: Run, files: Sequence[TakeFile]) -> tuple[list[TakeFile], list[TakeFile]]:
    """Those that workers read, and those that this process reads: a small run's, and on a cluster of several
    machines what may lie on this one alone.
    """
    if not files or files[0].questions.count == 1:
        return [], list(files)
    if len(run.host.cluster.nodes) == 1:
        return list(files), []
    shared = [file for file in files if is_uri(file.teacher.path) or file.teacher.path.startswith(HUB)]
    return shared, [file for file in files if file not in shared]


def taken_in_plan(run: Run, file: TakeFile) -> Taken:
    """What a plan reads of a file: all of it into memory where that is one slice."""
    is_left = file.questions.count > 1 and not file.stage.is_finished
    left = "a file to read" if is_left else None
    run.planned.append(Planned("generate", file.teacher.name, left, "workers" if is_left else "this process"))
    if file.stage.is_finished or file.questions.count > 1:
        return Taken(file.teacher.name, file.stage)
    told = ReadAnswers(file.teacher.path)
    return Taken(file.teacher.name, file.stage, pa.concat_tables(file.chunks(told, [])).to_pandas())


def ids_of(answer: FoundAnswer, index: QuestionIndex) -> list[str]:
    """The questions of ours that an answer is to: the one with its id; else those with the same turns; else,
    whatever the system text, the only one with the same other turns. Its own id where there is none.

    Raises:
        BadInput: several questions differ in their system text alone, and the answer has none of them.
    """
    if answer.prompt is None or answer.question_id in index.places:
        return [answer.question_id]
    exact = index.by_key.get(question_key(answer.prompt))
    if exact is not None:
        return exact
    near = index.by_body.get(body_digest(answer.prompt), [answer.question_id])
    if len({index.keys[index.places[q]] for q in near if q in index.places}) > 1:
        raise BadInput(
            "an answer could be to several questions, which differ in their system text",
            ", ".join(near[:4]),
            "the question's id, or its system text",
            "",
        )
    return near


def refuse_another_text(answer: FoundAnswer, index: QuestionIndex, path: str) -> None:
    """Stop when an answer's question has the same id as one of ours but other turns. A system text may
    differ: teachers are told what they are told.

    Raises:
        BadInput: with the id and both texts.
    """
    place = index.places.get(answer.question_id)
    if place is None or answer.prompt is None or body_digest(answer.prompt) == index.bodies[place]:
        return
    known = index.question(answer.question_id)
    raise BadInput(
        f"question {answer.question_id} has two different texts",
        f"{answer.prompt.text[:50]!r} in {path}, {known.text[:50]!r} among the questions",
        "one text an id",
        "these are different questions: give them different ids",
    )
