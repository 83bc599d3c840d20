"""Aligning a teacher: pairs of texts that a student prefers and does not, their log-probabilities under the
teacher as it was, and DPO on them.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cluster.models.messages import Prompt, plain
from cluster.seeds import derive_seed
from jobs.experiment.elicit import Elicit
from jobs.experiment.schema import Experiment
from jobs.files.answers import Row
from jobs.run.keys import question_key
from jobs.run.run import Run
from jobs.run.store import Stage, digest
from jobs.run.views import View
from jobs.stages.ask import Hosted
from jobs.stages.states import ModelState, Training
from jobs.stages.train import NothingToLearn, examples_stage, write_examples_of
from jobs.systems.arte.prefer import QUESTIONS, TASKS, Drafts, Preferred
from jobs.systems.arte.questions import TaskSet, Written, example_of, naive_prompt, prompt_for, shown_in
from jobs.systems.arte.texts import key_of, logprobs_in
from selection.preferences import Pair, helpful_pairs, question_pairs, rationale_pairs, shuffled_within
from training.data import Example, write_examples
from training.objective_settings import CROSS_ENTROPY
from training.preference_settings import REFERENCE


@dataclass(frozen=True)
class TextPair:
    """Two texts after one prompt, of which a student prefers the first."""

    kind: str
    task: str
    prompt: Prompt
    chosen: str
    rejected: str
    scores: tuple[float, float]

    @property
    def id(self) -> str:
        return digest([question_key(self.prompt).hex(), self.chosen, self.rejected])

    @property
    def group(self) -> str:
        """What is held out together: all pairs of one question's rationales, or a pair of questions."""
        return digest([question_key(self.prompt).hex()]) if self.kind == "rationale" else self.id

    @property
    def rows(self) -> tuple[Row, Row]:
        """Both texts, to be read by a model."""
        made = (Row("", "", "", self.prompt, text) for text in (self.chosen, self.rejected))
        chosen, rejected = made
        return chosen, rejected


@dataclass(frozen=True)
class Pairs:
    """The pairs of one alignment.

    Attributes:
        dropped: how many pairs there might have been and are not, by reason.
    """

    learned: list[TextPair]
    held_out: list[TextPair]
    dropped: Counter[str]

    @property
    def every(self) -> list[TextPair]:
        return [*self.learned, *self.held_out]

    @property
    def rows(self) -> list[Row]:
        """All texts, to be read by a model."""
        return [row for pair in self.every for row in pair.rows]


@dataclass(frozen=True)
class Alignment:
    """How a teacher is aligned to a preference, and the aligned teacher once it is trained.

    Attributes:
        chosen_only: whether the teacher imitates the chosen texts instead.
        figures: what held-out pairs tell of the aligned teacher.
    """

    label: str
    pairs: Pairs
    chosen_only: bool
    seed: int
    teacher: Hosted | None = None
    trained: Stage | None = None
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def hosted(self) -> Hosted:
        """The aligned teacher, which must be trained."""
        if self.teacher is None:
            raise TypeError(f"{self.label} is not trained")
        return self.teacher


def make_pairs(
    e: Experiment,
    elicit: Elicit,
    tasks: Mapping[str, TaskSet],
    written: Written,
    references: Mapping[str, str],
    drafts: Drafts,
    preferred: Preferred,
    is_shuffled: bool,
    seed: int,
) -> Pairs:
    """Turn scores into pairs: one for each question from its rationales, and some of whole questions.

    Args:
        references: the right results of questions, by id.
        is_shuffled: whether scores are permuted first, within each question and within each task. Then pairs
            tell nothing of a preference.
        seed: of every draw.
    """
    a, rows = elicit.align, preferred.table[preferred.table["score"].notna()].reset_index(drop=True)
    texts = {row.answer_id: row for row in drafts.rows}
    task_of = {q.id: q.family for q in written.questions.values()}
    if is_shuffled:
        ids = rows["answer_id"].tolist()
        own = dict(zip(ids, zip(rows["score"], rows["error"], strict=True), strict=True))
        groups = dict(zip(ids, rows["question_id"].tolist(), strict=True))
        moved = shuffled_within(own, groups, derive_seed(seed, "rationales"))
        rows = rows.assign(score=[moved[i][0] for i in ids], error=[moved[i][1] for i in ids])
    named = rows.rename(columns={"question_id": "question", "answer_id": "rationale"})
    found, dropped = list[TextPair](), Counter[str]()
    least = a.least_reliability
    if not (a.force or preferred.repeats(QUESTIONS, least)):
        dropped["no pair of rationales: scores within questions do not repeat"] = len(rows)
        named = named.iloc[:0]
    for question, pair in rationales_of(named, elicit, derive_seed(seed, "rationales"), dropped):
        prompt = naive_prompt(written.questions[question].prompt, elicit)
        chosen, rejected = texts[pair.chosen].answer, texts[pair.rejected].answer
        found.append(TextPair("rationale", task_of[question], prompt, chosen, rejected, scores_of(pair)))
    means = rows.groupby("question_id")["score"].mean()
    of_questions = {str(q): float(s) for q, s in means.items()}
    if is_shuffled:
        of_questions = shuffled_within(of_questions, task_of, derive_seed(seed, "questions"))
    most = a.question_pairs
    if not (a.force or preferred.repeats(TASKS, least)):
        dropped["no pair of questions: scores within tasks do not repeat"] = len(of_questions)
        most = 0
    for task, own_set in tasks.items():
        scores = {q: s for q, s in of_questions.items() if task_of[q] == task}
        own_pairs = question_pairs(scores, most, derive_seed(seed, "questions", task), a.pairing)
        dropped["no_preference between questions"] += min(most, len(scores) // 4) - len(own_pairs)
        for k, pair in enumerate(own_pairs):
            shown = shown_in(elicit, own_set.seeds, seed, "pair", task, k)
            asked = plain(prompt_for(elicit, task, shown, elicit.count))
            chosen, rejected = (
                example_of(elicit, written.questions[q].text, references.get(q, ""))
                for q in (pair.chosen, pair.rejected)
            )
            found.append(TextPair("question", task, asked, chosen, rejected, scores_of(pair)))
    kept = [p for p in found if p.chosen != p.rejected]
    dropped["same text"] += len(found) - len(kept)
    held = [int(p.group[:8], 16) / 2**32 < a.held_out for p in kept]
    learned = [p for p, is_held in zip(kept, held, strict=True) if not is_held]
    return Pairs(learned, [p for p, is_held in zip(kept, held, strict=True) if is_held], +dropped)


def rationales_of(
    named: pd.DataFrame, elicit: Elicit, seed: int, dropped: Counter[str]
) -> Iterable[tuple[str, Pair]]:
    """Pairs of rationales with their questions. Questions without a preference are counted."""
    a = elicit.align
    if a.per_prompt == "all":
        for question, own in named.groupby("question"):
            pairs = helpful_pairs(dict(zip(own["rationale"], own["score"], strict=True)))
            dropped["no_preference"] += not pairs
            yield from ((str(question), pair) for pair in pairs)
        return
    found, without = rationale_pairs(named, seed, a.best, a.apart)
    dropped["no_preference"] += len(without)
    yield from found.items()


def scores_of(pair: Pair) -> tuple[float, float]:
    return pair.chosen_score, pair.rejected_score


def readable(pairs: Pairs, view: View) -> Pairs:
    """The pairs of which both texts could be read. The others are counted."""
    known = logprobs_in(view)
    learned, held_out = (
        [p for p in some if all(key_of(row) in known for row in p.rows)]
        for some in (pairs.learned, pairs.held_out)
    )
    lost = len(pairs.every) - len(learned) - len(held_out)
    return Pairs(learned, held_out, pairs.dropped + Counter({"could not be read": lost}))


def write_pairs(run: Run, teacher: ModelState, way: Alignment, view: View) -> Stage:
    """Write an alignment's pairs as training examples, with their log-probabilities under the teacher as it
    was.

    Raises:
        NothingToLearn: no pair is left.
    """
    label, pairs, chosen_only, dropped = way.label, way.pairs.learned, way.chosen_only, way.pairs.dropped
    told = dropped + Counter({"held out": len(way.pairs.held_out)})
    if not pairs:
        raise NothingToLearn(
            f"{label}: no pair of a preferred and another text",
            ", ".join(f"{n} {why}" for why, n in told.items()) or "no draft has a score",
            "at least one",
            "look at the scores: a pair needs one that is higher than another",
        )
    about = [sorted(p.id for p in pairs), view.id, chosen_only]
    stage = examples_stage(run.store, "arte", teacher.rendering, digest(about))

    def make(place: Any) -> Mapping[str, int]:
        known, renderer, examples = logprobs_in(view), teacher.renderer(), list[Example]()
        for number, pair in enumerate(sorted(pairs, key=lambda p: p.id)):
            rows = pair.rows
            said = [renderer.conversation(row.prompt, row.answer) for row in rows]
            for row, own in zip(rows[: 1 if chosen_only else 2], said, strict=False):
                told = np.zeros((1, own.answer_end - own.prompt_length, 1), dtype=np.float32)
                told[0, 0, 0] = known[key_of(row)]  # their sum counts, so it may stand at the first token
                span = own.prompt_length, own.answer_end
                arrays = {} if chosen_only else {REFERENCE: told}
                examples.append(Example(own.ids, *span, 1.0, -1 if chosen_only else number, arrays))
        write_examples(place, examples, {} if chosen_only else {REFERENCE: 1})
        return {"examples": len(examples)}

    return write_examples_of(run, label, stage, make)


def alignment_of(
    e: Experiment, elicit: Elicit, teacher: ModelState, examples: Stage, way: Alignment
) -> Training:
    """The training that aligns a teacher, or that only imitates the chosen texts."""
    objective = CROSS_ENTROPY if way.chosen_only else elicit.align.objective
    settings, seed = elicit.align.train(e.train), derive_seed(way.seed, "align")
    return Training(way.label, teacher, examples, seed, settings, objective=objective)


def held_out_figures(before: View, after: View, way: Alignment, beta: float) -> dict[str, float]:
    """Whether the aligned teacher prefers what the student prefers, on pairs that it has not learned from."""
    if not after.is_finished:
        return {}
    old, new, rows = logprobs_in(before), logprobs_in(after), []
    for pair in way.pairs.held_out:
        keys = [key_of(row) for row in pair.rows]
        if all(key in old and key in new for key in keys):
            rows.append([new[key] - old[key] for key in keys])
    if not rows:
        return {"held-out pairs": 0.0}
    gains = np.array(rows)
    margins = beta * (gains[:, 0] - gains[:, 1])
    return {
        "held-out pairs": float(len(rows)),
        "held-out accuracy": float((margins > 0).mean()),
        "held-out margin": float(margins.mean()),
        "held-out gain of chosen (nats)": float(gains[:, 0].mean()),
        "held-out gain of rejected (nats)": float(gains[:, 1].mean()),
    }


def refuse_unreliable(label: str, elicit: Elicit, preferred: Preferred) -> None:
    """Do not align a teacher to scores that do not repeat.

    Raises:
        NothingToLearn: the reliability is too low. Says how low.
    """
    least = elicit.align.least_reliability
    if elicit.align.force or any(preferred.repeats(within, least) for within in (TASKS, QUESTIONS)):
        return
    told = (
        f"{name} {'unknown, as all are tied' if math.isnan(value) else format(value, '.2f')}"
        for name, value in preferred.reliability.items()
    )
    raise NothingToLearn(
        f"{label}: the student's scores of drafts do not repeat, so the teacher is not aligned to them",
        f"reliability {', '.join(told)}",
        f"at least {least:g} (elicit.align.least_reliability), and more than noise of so few drafts shows",
        "use more items, another signal, or set elicit.align.force to go on knowingly",
    )
