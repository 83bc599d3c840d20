"""Stage evaluate: every student on the held-out questions, greedily, or by its loss on worked reference
answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from cluster.errors import Unrenderable, describe
from cluster.metrics import Tally
from cluster.models.loading import load_model, pick_device
from cluster.models.proof import SAMPLING, prove
from cluster.models.sampling import Sampling, generation_stop_ids, sample
from jobs.experiment.placement import Placement
from jobs.experiment.stages import Evaluate
from jobs.files.questions import Question
from jobs.run.rows import Shards, Want, make_rows
from jobs.run.run import Run
from jobs.run.store import Stage, Store, digest
from jobs.stages.states import ModelState
from jobs.stages.verify import verify_config
from selection.scoring import Scorer
from selection.verification import VerifySettings, process_verifier

VERSION = 1
COLUMNS = ["question_id", "family", "state", "value", "text", "extracted", "tokens", "finish"]


@dataclass(frozen=True)
class Judging:
    """How students are judged: the measure, how their answers are checked, the layer a loss is read at."""

    evaluate: Evaluate
    verify: VerifySettings
    target_layer: str | None


class EvaluateHandler:
    """Handler in an actor: loads the student once, and judges it on questions.

    `value` is 1 or 0 for a right or wrong answer, or minus the loss in nats per answer token: higher is
    better.
    """

    def __init__(self, student: ModelState, judging: Judging, num_gpus: float) -> None:
        self.settings = judging.evaluate
        self.model = load_model(student.source, pick_device(num_gpus))
        self.renderer = student.renderer()
        self.verifier = process_verifier(judging.verify)
        self.scorer = (
            Scorer(self.model, self.renderer.special_ids, judging.target_layer)
            if self.settings.metric == "loss"
            else None
        )
        self.proof = prove(self.model, SAMPLING) if self.scorer is None else self.scorer.proof
        self.fallbacks = self.proof.lines

    def identity(self, question: Question) -> str:
        return question.id

    def give_up(self, question: Question, reason: str) -> pd.DataFrame:
        row = (question.id, question.family, "quarantined", None, "", reason, 0, "")
        return pd.DataFrame([row], columns=COLUMNS)

    def compute(self, questions: Sequence[Question]) -> pd.DataFrame:
        judge = self._answers if self.scorer is None else self._losses
        return pd.DataFrame(judge(questions), columns=COLUMNS)

    def tally(self, table: pd.DataFrame) -> Tally:
        failed = int(table["state"].isin(["unrenderable", "quarantined"]).sum())
        return Tally(len(table), int(table["tokens"].sum()), failed)

    def _answers(self, questions: Sequence[Question]) -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = []
        prompts = {}
        for q in questions:
            try:
                prompts[q] = self.renderer.prompt(q.text, q.system)
            except Unrenderable as error:
                rows.append((q.id, q.family, "unrenderable", None, "", str(error), 0, ""))
        stop_ids = self.renderer.stop_ids | generation_stop_ids(self.model)
        sampling = Sampling(self.settings.max_new_tokens, stop_ids, way=self.proof.way)
        for q, c in zip(prompts, sample(self.model, list(prompts.values()), sampling), strict=True):
            if isinstance(c, Exception):
                rows.append((q.id, q.family, "quarantined", None, "", describe(c), 0, ""))
                continue
            text = self.renderer.answer_text(c.ids)
            verdict = self.verifier.check(text, q.reference)
            rows.append(
                (
                    q.id,
                    q.family,
                    verdict.state,
                    float(verdict.state == "correct"),
                    text,
                    verdict.extracted,
                    len(c.ids),
                    c.finish,
                )
            )
        return rows

    def _losses(self, questions: Sequence[Question]) -> list[tuple[object, ...]]:
        if self.scorer is None:
            raise RuntimeError("losses need a scorer")
        rows: list[tuple[object, ...]] = []
        rendered = {}
        for q in questions:
            try:
                rendered[q.id] = self.renderer.conversation(q.text, q.reference, q.system)
            except Unrenderable as error:
                rows.append((q.id, q.family, "unrenderable", None, "", str(error), 0, ""))
        by_id = {q.id: q for q in questions}
        for identity, result in zip(rendered, self.scorer.score(list(rendered.values())), strict=True):
            if isinstance(result, Exception):
                rows.append(
                    (identity, by_id[identity].family, "quarantined", None, "", describe(result), 0, "")
                )
            else:
                loss = result.answer_loss / result.n_answer
                rows.append((identity, by_id[identity].family, "scored", -loss, "", "", result.n_answer, ""))
        return rows


def evaluate_stage(
    store: Store, judging: Judging, student: ModelState, questions: Sequence[Question]
) -> Stage:
    """The stage that holds a student's results on these questions."""
    settings = judging.evaluate
    config = {
        "evaluate": settings.model_dump(exclude={"baseline", "allow_truncation"}),
        "verify": verify_config(judging.verify) if settings.metric == "accuracy" else None,
        "rendering": student.rendering,
    }
    content = digest([(q.id, q.text, q.reference, q.system) for q in questions])
    return store.stage("evaluate", VERSION, config, {"student": student.id, "questions": content})


def evaluate_students(
    run: Run,
    students: Mapping[str, ModelState],
    questions: Sequence[Question],
    judging: Judging,
    placement: Placement,
) -> dict[str, Stage]:
    """Evaluate students (label -> state) on held-out questions; returns label -> stage."""
    stages = {label: evaluate_stage(run.store, judging, s, questions) for label, s in students.items()}
    # many students keep every worker busy with one each, which loads each of them once
    several = len({s.id for s in stages.values() if not s.is_finished}) >= placement.evaluate_workers
    workers = 1 if several else placement.evaluate_workers
    wants = [
        Want(
            label,
            stage,
            partial(shards_of_questions, questions, judging.evaluate.shard_size),
            partial(EvaluateHandler, students[label], judging, placement.num_gpus),
            workers,
            placement.needs,
            COLUMNS,
            count_results,
            place=f"{placement.evaluate_workers} × ({placement.needs})",
        )
        for label, stage in stages.items()
    ]
    make_rows(run, wants, "questions")
    return stages


def shards_of_questions(questions: Sequence[Question], size: int) -> Shards:
    return [(f"{k:06d}", list(questions[i : i + size])) for k, i in enumerate(range(0, len(questions), size))]


def count_results(results: pd.DataFrame) -> dict[str, Any]:
    """What the manifest says of a student's results; `value` is their mean."""
    cut_off = int((results["finish"] == "length").sum())
    return {"questions": len(results), "value": float(results["value"].mean()), "cut_off": cut_off}
