"""A student's own rollouts. They are sampled and checked like teachers' answers. Their tokens are kept as
they were sampled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from jobs.experiment.placement import Placement
from jobs.experiment.rollouts import Rollouts
from jobs.files.questions import Question
from jobs.run.keys import question_key
from jobs.run.run import Run
from jobs.run.store import digest
from jobs.stages.answers import LOGPROBS, answers_to, asks_of, ids_by_key, request_of
from jobs.stages.ask import Hosted, Wave, ask
from jobs.stages.check import Checks, check_answers
from jobs.stages.hosted import Draw
from jobs.stages.judge import JUDGE_FAILED
from jobs.stages.states import ModelState
from selection.steering import Rollout

RIGHT, WRONG = ("correct",), ("wrong", "unparsed")
SECOND_THOUGHTS = r"\b(?:wait|but|however)\b"


@dataclass(frozen=True)
class RolledOut:
    """One student's rollouts for some questions, with verdicts.

    Attributes:
        table: one row for each rollout: question_id, sample, rollout_id, text, token_ids (the end token
            included), token_logprobs, state (right, wrong, or the reason why there is no verdict), finish.
        id: a digest of the rollouts and verdicts.
    """

    state: ModelState
    table: pd.DataFrame
    id: str

    @property
    def logprobs(self) -> dict[str, tuple[float, ...]]:
        """For each rollout's id, the log-probabilities of its tokens when they were sampled."""
        return dict(zip(self.table["rollout_id"], self.table[LOGPROBS], strict=True))

    def of(self, question: str) -> list[Rollout]:
        """The rollouts of one question, in the form that pools are made from."""
        own = self.table[self.table["question_id"] == question]
        rows = zip(own["rollout_id"], own["text"], own["state"], strict=True)
        return [Rollout(i, text, {"right": True, "wrong": False}.get(state)) for i, text, state in rows]

    def told(self) -> dict[str, float]:
        """Statistics for the report: accuracy, the share that was cut off, mean lengths of right and wrong
        rollouts, and how often words of second thought occur.
        """
        t = self.table
        length = t["token_ids"].map(len)
        right, wrong = t["state"] == "right", t["state"] == "wrong"
        doubts = t["text"].str.lower().str.count(SECOND_THOUGHTS)
        return {
            "rollouts": len(t),
            "right": float(right.mean()),
            "cut off": float((t["finish"] == "length").mean()),
            "mean tokens, right": float(length[right].mean()) if right.any() else float("nan"),
            "mean tokens, wrong": float(length[wrong].mean()) if wrong.any() else float("nan"),
            "second thoughts a rollout": float(doubts.mean()),
        }


def drawn_questions(
    questions: Mapping[str, Question], drawn: Rollouts, seed: int, number: int
) -> list[Question]:
    """The questions of one round. Each round takes the next part of all questions, and starts again at the
    end of them. All arms get the same. The order depends on the questions' content and the seed.
    """
    order = sorted(questions.values(), key=lambda q: (digest([seed, question_key(q.prompt).hex()]), q.id))
    start = (number - 1) * drawn.questions
    return [order[(start + k) % len(order)] for k in range(min(drawn.questions, len(order)))]


def roll_out(
    run: Run,
    states: Mapping[str, ModelState],
    questions: Sequence[Question],
    drawn: Rollouts,
    checks: Checks,
    seeds: Mapping[str, int],
    placement: Placement,
) -> dict[str, RolledOut]:
    """Sample several answers of students to each question, and check them. Returns label -> rollouts. In a
    plan, rollouts that do not exist yet are left out.

    Args:
        states: the students by label. Labels with the same student and the same seed share their rollouts.
        seeds: the seeds of sampling, by label.
    """
    about = drawn.temperature, drawn.top_p, drawn.max_new_tokens
    drawn_by = {label: (state.id, seeds[label]) for label, state in states.items()}
    distinct = {drawn_by[label]: (label, state) for label, state in reversed(list(states.items()))}
    workers = 1 if len(distinct) >= placement.evaluate_workers else placement.evaluate_workers
    request = request_of(asks_of(questions, range(drawn.group)))
    waves = {
        label: Wave(
            Hosted(state, workers, placement.needs), Draw(*about, seeds[label], logprobs=True), request
        )
        for label, state in distinct.values()
    }
    views = ask(run, "roll out", waves, drawn.shard_size)
    ids, by_id = ids_by_key(questions), {q.id: q for q in questions}
    found = {}
    for label, state in distinct.values():
        if not views[label].is_finished:
            continue
        answers = answers_to(views[label].read(), ids)
        checked = check_answers(run, "verdicts on", label, f"rollouts of {label}", checks, answers, by_id)
        table = table_of(checked.answers, state)
        identity = digest([views[label].id, [view.id for view in checked.views]])
        found[drawn_by[label]] = RolledOut(state, table, identity)
    return {label: found[by] for label, by in drawn_by.items() if by in found}


def table_of(answers: pd.DataFrame, state: ModelState) -> pd.DataFrame:
    """Make the table of rollouts with their verdicts, in the order of questions and samples. A rollout that
    was cut off counts as wrong, because its next tokens might have changed its result. An empty rollout
    counts as wrong.
    """
    end = end_of_turn(state)
    unjudged = (answers["state"] == "checker_error") & answers["extracted"].str.startswith(JUDGE_FAILED)
    said = answers["state"].where(~unjudged, "unjudged").fillna("empty")
    is_cut = said.isin(RIGHT) & (answers["finish"] == "length")
    says_nothing = (said == "empty") & answers["finish"].isin(["stop", "length"])
    told = np.select([is_cut | said.isin(WRONG) | says_nothing, said.isin(RIGHT)], ["wrong", "right"], said)
    told = np.where(answers["finish"] == "failed", "failed", told)
    rows = zip(answers["token_ids"], answers["finish"], strict=True)
    tokens = [tuple(int(i) for i in ids) + ((end,) if finish == "stop" else ()) for ids, finish in rows]
    names = zip(answers["question_id"], answers["sample"], strict=True)
    table = answers[["question_id", "sample", "text", "finish", LOGPROBS]].assign(
        state=told, token_ids=pd.Series(tokens, index=answers.index, dtype=object)
    )
    table["rollout_id"] = [f"{question}/{sample}" for question, sample in names]
    return table.sort_values(["question_id", "sample"], ignore_index=True)


def end_of_turn(state: ModelState) -> int:
    """The token that ends a turn in this student's template. If a model stopped at another end token, its
    rollout is recorded with this one.
    """
    renderer = state.renderer()
    probe = renderer.conversation("2+2?", "4")
    return probe.ids[probe.answer_end - 1]
