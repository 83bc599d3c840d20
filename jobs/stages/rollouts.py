"""A student's own rollouts. They are sampled and checked like teachers' answers, and go through slices like
them. Their tokens are kept as they were sampled.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from jobs.experiment.placement import Placement
from jobs.experiment.rollouts import Rollouts
from jobs.files.questions import Question
from jobs.run.run import Run
from jobs.run.slices import Made, Sliced, make_slices
from jobs.run.store import digest
from jobs.run.views import Finished, View
from jobs.stages.answers import LOGPROBS, answers_to, asks_of, ids_by_key, request_of
from jobs.stages.ask import Hosted, Wave, ask
from jobs.stages.check import Checks
from jobs.stages.drawn import drawn_slices
from jobs.stages.gather import GATHER, Said, check_gathered, gather, with_verdicts
from jobs.stages.hosted import Draw
from jobs.stages.judge import JUDGE_FAILED
from jobs.stages.pool import counted
from jobs.stages.questions import read_slice
from jobs.stages.states import ModelState
from selection.steering import Rollout

VERSION = 1
ROLLOUTS = "rollouts"
RIGHT, WRONG = ("correct",), ("wrong", "unparsed")
SECOND_THOUGHTS = r"\b(?:wait|but|however)\b"
STATE_COLUMNS = ["question_id", "sample", "rollout_id", "state", "finish", "tokens"]


@dataclass(frozen=True)
class RolledOut:
    """One student's rollouts for some questions, with verdicts, by slice. Workers read texts and tokens. The
    driver reads states and lengths.

    Attributes:
        questions: the questions that were drawn (`jobs/stages/drawn.py`).
        gathered, states: texts and states, row by row in the same order.
        said: the view of the answers, which holds tokens and log-probabilities.
        samples: the number of rollouts of each question.
        end: the id of the token that ends a turn.
        id: a digest of the rollouts and verdicts.
    """

    state: ModelState
    questions: Sliced
    gathered: Sliced
    states: Sliced
    said: Finished
    samples: int
    end: int
    id: str

    @property
    def count(self) -> int:
        """The number of slices."""
        return self.states.count

    def told(self, number: int) -> pd.DataFrame:
        """One slice's rollouts without their texts, ordered by question and sample.

        Columns: question_id, sample, rollout_id, state (right, wrong, or the reason why there is no verdict),
        finish, tokens (the number of sampled tokens, the end token included).
        """
        return self.states.read(ROLLOUTS, number)

    def read(self, number: int) -> pd.DataFrame:
        """One slice's rollouts with their texts, and with their sampled tokens and the tokens'
        log-probabilities: columns token_ids and token_logprobs, the end token included.
        """
        table = self.told(number)
        if table.empty:  # no question lies in this slice
            return table.assign(text=[], token_ids=[], token_logprobs=[])
        asked = read_slice(self.questions, number).values()
        keys = [one.key for one in asks_of(asked, range(self.samples))]
        own = answers_to(self.said.rows(keys, ["token_ids", LOGPROBS]), ids_by_key(asked))
        own = own.set_index(["question_id", "sample"])
        own = own.loc[list(zip(table["question_id"], table["sample"], strict=True))]
        ended = (table["finish"] == "stop").tolist()
        tokens = [
            tuple(int(i) for i in ids) + ((self.end,) if is_whole else ())
            for ids, is_whole in zip(own["token_ids"].tolist(), ended, strict=True)
        ]
        return table.assign(
            text=self.gathered.read(GATHER, number, ["text"])["text"],
            token_ids=pd.Series(tokens, index=table.index, dtype=object),
            token_logprobs=pd.Series(own[LOGPROBS].tolist(), index=table.index, dtype=object),
        )

    def figures(self) -> dict[str, float]:
        """Statistics for the report: accuracy, the share that was cut off, mean lengths of right and wrong
        rollouts, and how often the words "wait", "but" and "however" occur in a rollout.
        """
        said = self.states.counts()
        total, number = said["rollouts"], said["states"]
        mean = {
            state: said["tokens"].get(state, 0) / number[state] if number.get(state) else float("nan")
            for state in ("right", "wrong")
        }
        return {
            "rollouts": total,
            "right": number.get("right", 0) / total,
            "cut off": said["cut_off"] / total,
            "mean tokens, right": mean["right"],
            "mean tokens, wrong": mean["wrong"],
            "second thoughts a rollout": said["second_thoughts"] / total,
        }


def by_question(rollouts: pd.DataFrame) -> dict[str, list[Rollout]]:
    """Group one slice's rollouts by question, in the form that `contexts_of` takes.

    Args:
        rollouts: one slice, with texts.
    """
    found: dict[str, list[Rollout]] = {}
    columns = (rollouts[c].tolist() for c in ("question_id", "rollout_id", "text", "state"))
    for question, identity, text, state in zip(*columns, strict=True):
        is_right = {"right": True, "wrong": False}.get(state)
        found.setdefault(question, []).append(Rollout(identity, text, is_right))
    return found


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
        states: the students by label. Labels with the same student, engine and seed share their
            rollouts.
        seeds: the seeds of sampling, by label.

    Raises:
        Unmade: in a plan, verdicts are not there yet.
    """
    about = drawn.temperature, drawn.top_p, drawn.max_new_tokens
    drawn_by = {label: (state.id, *state.engine.values(), seeds[label]) for label, state in states.items()}
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
    asked = {by: (label, state) for by, (label, state) in distinct.items() if views[label].is_finished}
    if not asked:
        return {}
    first, _ = next(iter(asked.values()))
    slices = drawn_slices(run, f"questions of {first}", questions, drawn.group)
    found = {
        by: with_states(run, label, state, views[label], slices, drawn.group, checks)
        for by, (label, state) in asked.items()
    }
    return {label: found[by] for label, by in drawn_by.items() if by in found}


def with_states(
    run: Run, label: str, state: ModelState, view: View, questions: Sliced, samples: int, checks: Checks
) -> RolledOut:
    """Check the rollouts of one student, slice by slice."""
    name, said = f"rollouts of {label}", Said("", view.id, view.finished, tuple(range(samples)))
    gathered = gather(run, name, questions, [said], checks)
    views = check_gathered(run, "verdicts on", "verdicts on", name, checks, questions, gathered)
    inputs = {"gathered": gathered.id} | {method: own.id for method, own in views.items()}
    stage = Sliced(run.store.stage(ROLLOUTS, VERSION, {}, inputs), (ROLLOUTS,), questions.count)
    make = RolloutSlice(gathered, {method: own.finished for method, own in views.items()})
    states = make_slices(run, ROLLOUTS, f"of {label}", stage, make, rollouts="rollouts")
    identity = digest([view.id, [own.id for own in views.values()]])
    end = end_of_turn(state)
    return RolledOut(state, questions, gathered, states, view.finished, samples, end, identity)


@dataclass(frozen=True)
class RolloutSlice:
    """Runs in a worker. Gives every rollout of a slice its state.

    Attributes:
        verdicts: the views of verdicts, by method.
    """

    gathered: Sliced
    verdicts: Mapping[str, Finished]

    def __call__(self, number: int) -> Made:
        answers = with_verdicts(self.gathered.read(GATHER, number), self.verdicts)
        names = zip(answers["question_id"].tolist(), answers["sample"].tolist(), strict=True)
        ended = (answers["finish"] == "stop").astype(int)
        table = answers.assign(
            state=states_of(answers),
            rollout_id=[f"{question}/{sample}" for question, sample in names],
            tokens=answers["answer_tokens"].astype(int) + ended,
        )
        doubts = [len(re.findall(SECOND_THOUGHTS, text.lower())) for text in table["text"].tolist()]
        told: dict[str, Any] = {
            "rollouts": len(table),
            "states": counted(table["state"]),
            "tokens": {str(k): int(n) for k, n in table.groupby("state")["tokens"].sum().items()},
            "cut_off": int((table["finish"] == "length").sum()),
            "second_thoughts": sum(doubts),
        }
        return Made({ROLLOUTS: table[STATE_COLUMNS]}, told)


def states_of(answers: pd.DataFrame) -> list[str]:
    """The states of rollouts with verdicts. A rollout that was cut off counts as wrong, because its next
    tokens might have changed its result. An empty rollout counts as wrong.

    Args:
        answers: columns state (of the verdict, or empty), extracted and finish.
    """
    by_judge = pd.Series([why.startswith(JUDGE_FAILED) for why in answers["extracted"]], answers.index, bool)
    unjudged = (answers["state"] == "checker_error") & by_judge
    said = answers["state"].where(~unjudged, "unjudged").replace("", "empty")
    is_cut = said.isin(RIGHT) & (answers["finish"] == "length")
    says_nothing = (said == "empty") & answers["finish"].isin(["stop", "length"])
    told = np.select([is_cut | said.isin(WRONG) | says_nothing, said.isin(RIGHT)], ["wrong", "right"], said)
    return [str(state) for state in np.where(answers["finish"] == "failed", "failed", told)]


def end_of_turn(state: ModelState) -> int:
    """The token that ends a turn in this student's template. If a model stopped at another end token, its
    rollout is recorded with this one.
    """
    renderer = state.renderer()
    probe = renderer.conversation("2+2?", "4")
    return probe.ids[probe.answer_end - 1]
