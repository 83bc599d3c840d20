"""Chosen answers as training examples, for every system whose students learn from teachers' answers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from cluster.errors import BadInput
from cluster.models.messages import read_turns
from cluster.models.rendering import Renderer
from cluster.storage import Place
from jobs.experiment.stages import Evaluate, Score
from jobs.files.answers import Row
from jobs.files.questions import Question
from jobs.run.run import Run
from jobs.run.slices import Sliced, Task, do_tasks
from jobs.run.store import Stage
from jobs.stages.pool import AnswerPool
from jobs.stages.questions import read_slice
from jobs.stages.score import PoolScores
from jobs.stages.scorer import rendered_of
from jobs.stages.states import ModelState
from jobs.stages.train import EXAMPLES, examples_stage, write_examples_of
from training.data import SUFFIX, Example, Examples, join_examples, write_examples
from training.settings import TrainSettings, with_steps

RARE = 0.05  # of chosen answers that may be longer than the student may generate


def settings_for(examples: Stage, settings: TrainSettings) -> TrainSettings:
    """The settings of a training on these examples. A token budget is converted into a number of steps."""
    if settings.tokens is None:
        return settings
    return with_steps(settings, float(Examples(examples.part(EXAMPLES)).loss_tokens.mean()))


def examples_of(
    run: Run,
    label: str,
    student: ModelState,
    chosen: Sliced,
    pool: AnswerPool,
    evaluate: Evaluate,
    score: Score,
) -> Stage:
    """Write the chosen answers as training examples. Paths with the same choice and the same rendering share
    them.

    Args:
        score: how they were scored. Answers of many turns that were cut then are cut here.
        evaluate: how the student is evaluated: it must be allowed to write what it learns from.
    """
    stage = examples_stage(run.store, "select", student.rendering, chosen.id)
    render = RenderSlice(student, chosen, pool, score.max_length if score.cut else None)

    def make(place: Place) -> Mapping[str, int]:
        pieces = [stage.directory / f"piece-{k:05d}{SUFFIX}" for k in range(chosen.count)]
        tasks = [(f"{label} {k}", Task(render, (k, piece))) for k, piece in enumerate(pieces)]
        here = chosen.count == 1
        try:
            do_tasks(run, "examples", label, tasks, here)
            joined = Task(join_pieces, (pieces, place, evaluate.max_new_tokens))
            return dict(do_tasks(run, "examples", f"{label} as one file", [("all", joined)], here)["all"])
        finally:
            for piece in pieces:
                piece.unlink()

    write_examples_of(run, label, stage, make)
    if stage.is_finished and (line := check_lengths(label, stage.manifest()["counts"], evaluate)):
        run.terminal.say(line)
    return stage


def join_pieces(pieces: Sequence[Place], place: Place, limit: int) -> dict[str, int]:
    """Runs in a worker. Joins the slices' examples.

    Returns:
        Their number (`examples`), and how long the longest turn of each is, in tokens: `longest` of all,
        `usual` (`RARE` of them are longer at most), and `longer`, how many are longer than the `limit`.
    """
    count = join_examples(pieces, place)
    if not count:
        return {"examples": 0}
    turns = np.sort(Examples(place).longest_turn)
    usual = int(turns[math.ceil((1 - RARE) * count) - 1])
    longer = int((turns > limit).sum())
    return {"examples": count, "longest": int(turns[-1]), "usual": usual, "longer": longer, "limit": limit}


def longer_than(counts: Mapping[str, int], limit: int) -> int | None:
    """How many examples are longer than a limit. None if some are, and it was not counted for this limit."""
    if counts.get("longest", 0) <= limit:  # earlier versions did not count
        return 0
    return counts["longer"] if counts["limit"] == limit else None


@dataclass(frozen=True)
class RenderSlice:
    """Runs in a worker. Renders a slice's chosen answers for training, in the order in which they were
    chosen.

    Attributes:
        cut_at: answers of many turns with more tokens are cut. None if nothing is.
    """

    student: ModelState
    chosen: Sliced
    pool: AnswerPool
    cut_at: int | None = None

    def __call__(self, number: int, piece: Place) -> int:
        chosen = self.chosen.read("chosen", number)
        questions = read_slice(self.pool.questions, number)
        answers, renderer = self.pool.read(number), self.student.renderer()
        examples = render_chosen(chosen, answers, questions, renderer, self.cut_at)
        write_examples(piece, examples)
        return len(examples)


def refuse_another_rendering(label: str, scores: PoolScores, student: ModelState) -> None:
    """Refuse costs that were computed on other tokens than training will use.

    Raises:
        BadInput: the renderings differ. Gives both.
    """
    scored_under = scores.rendering
    if scored_under != student.rendering:
        raise BadInput(
            f"{label}: the costs were made under another rendering than training uses",
            str(scored_under)[:12],
            f"{student.rendering[:12]}, the student's own chat template",
            "score again with the student as it is now",
        )


def render_chosen(
    chosen: pd.DataFrame,
    pool: pd.DataFrame,
    questions: Mapping[str, Question],
    renderer: Renderer,
    cut_at: int | None = None,
) -> list[Example]:
    """Render the chosen answers for training, in the order of the rows of `chosen`. An answer that was cut
    off is learned without the end of its turn, which its teacher did not write.
    """
    wanted = pool[pool["answer_id"].isin(chosen["answer_id"].tolist())]
    columns = (wanted[c].tolist() for c in ("answer_id", "text", "tool_calls", "turns", "finish"))
    answers = {answer: said for answer, *said in zip(*columns, strict=True)}
    examples = []
    columns = (chosen[c].tolist() for c in ("question_id", "answer_id", "weight"))
    for question, answer, weight in zip(*columns, strict=True):
        text, calls, turns, finish = answers[answer]
        row = Row(answer, question, "", questions[question].prompt, text, calls, read_turns(turns))
        r = rendered_of(row, renderer, cut_at, cut_at is not None)
        gaps = tuple((end, start) for (_, end), (start, _) in pairwise(r.spans))
        end = renderer.end_of_text(r) if finish == "length" and not calls else r.answer_end
        examples.append(Example(r.ids, r.prompt_length, end, float(weight), gaps=gaps))
    return examples


def check_lengths(label: str, counts: Mapping[str, int], evaluate: Evaluate) -> str:
    """Refuse to train on answers that are longer than the student may generate in evaluation. A few are
    tolerated: a text may have more tokens than its teacher wrote it in.

    Args:
        counts: what `join_pieces` counted.

    Returns:
        A line about the few. Empty if there are none.

    Raises:
        BadInput: more than one of twenty is longer than `evaluate.max_new_tokens`.
    """
    limit = evaluate.max_new_tokens
    longer = longer_than(counts, limit)
    if longer == 0 or evaluate.metric != "accuracy" or evaluate.allow_truncation:
        return ""
    many = "some" if longer is None else str(longer)
    told = f"{label}: {many} of {counts['examples']} chosen answers are longer than the student may generate"
    sizes = f"up to {counts['longest']} tokens, evaluate.max_new_tokens {limit}"
    if counts["usual"] > limit:
        raise BadInput(
            told,
            sizes,
            f"room for {1 - RARE:.0%} of the chosen answers",
            f"set evaluate.max_new_tokens={counts['longest']}, or evaluate.allow_truncation=true to go on "
            "knowingly",
        )
    return f"{told} ({sizes})"
