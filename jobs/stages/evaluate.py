"""Stage evaluate: every student on the held-out questions, greedily, or by its loss on worked reference
answers.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd

from cluster.errors import describe
from cluster.metrics import Tally
from cluster.models.loading import load_model, pick_device
from cluster.models.proof import SAMPLING, prove
from cluster.models.rendering import Unrenderable
from cluster.models.sampling import Sampling, generation_stop_ids, sample
from cluster.pool import Job
from cluster.storage import Place
from jobs.experiment.schema import Evaluate
from jobs.files.datasets import Question
from jobs.run.context import Context
from jobs.run.quarantine import forget_attempts, run_isolated
from jobs.run.store import Stage, digest, write_fallbacks, write_table
from jobs.stages.score import StudentState
from jobs.stages.verify import verify_config
from selection.scoring import Scorer
from selection.verification import VerifySettings, process_verifier

VERSION = 1
COLUMNS = ["question_id", "family", "state", "value", "text", "extracted", "tokens", "finish"]


class EvaluateHandler:
    """Handler in an actor: loads the student once; writes each shard's results as a part.

    `value` is 1 or 0 for a right or wrong answer, or minus the loss in nats per answer token: higher is
    better.
    """

    def __init__(
        self,
        student: StudentState,
        settings: Evaluate,
        verify: VerifySettings,
        target_layer: str | None,
        num_gpus: float,
        directory: str,
    ) -> None:
        self.settings, self.directory = settings, Place(directory)
        self.model = load_model(student.source, pick_device(num_gpus))
        self.renderer = student.renderer()
        self.verifier = process_verifier(verify)
        self.scorer = (
            Scorer(self.model, self.renderer.special_ids, target_layer) if settings.metric == "loss" else None
        )
        self.proof = prove(self.model, SAMPLING) if self.scorer is None else self.scorer.proof
        write_fallbacks(self.directory, self.proof.lines)

    def __call__(self, shard: tuple[str, list[Question]]) -> Tally:
        part, questions = shard
        run = self._answers if self.scorer is None else self._losses
        table = run_isolated(
            self.directory,
            part,
            questions,
            lambda q: q.id,
            lambda some: pd.DataFrame(run(some), columns=COLUMNS),
            lambda q, reason: pd.DataFrame(
                [(q.id, q.family, "quarantined", None, "", reason, 0, "")], columns=COLUMNS
            ),
        )
        write_table(self.directory / f"{part}.parquet", table)
        return Tally(
            len(questions),
            int(table["tokens"].sum()),
            int(table["state"].isin(["unrenderable", "quarantined"]).sum()),
        )

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


def evaluate_stage(context: Context, student: StudentState, questions: Sequence[Question]) -> Stage:
    """The stage that holds a student's results on these questions."""
    e = context.experiment
    config = {
        "evaluate": e.evaluate.model_dump(exclude={"baseline", "allow_truncation"}),
        "verify": verify_config(e.verify) if e.evaluate.metric == "accuracy" else None,
        "rendering": student.rendering,
    }
    content = digest([(q.id, q.text, q.reference, q.system) for q in questions])
    return context.store.stage("evaluate", VERSION, config, {"student": student.id, "questions": content})


def evaluate_students(
    context: Context, students: Mapping[str, StudentState], questions: Sequence[Question]
) -> dict[str, Stage]:
    """Evaluate students (label -> state) on held-out questions; returns label -> finished stage."""
    stages = {
        label: context.note(f"evaluate {label}", evaluate_stage(context, s, questions))
        for label, s in students.items()
    }
    with context.claimed(stages.values()):
        unfinished = {
            stage.id: (label, stage) for label, stage in reversed(stages.items()) if not stage.is_finished
        }
        _evaluate_missing(
            context,
            [(label, students[label], stage) for label, stage in reversed(unfinished.values())],
            questions,
        )
    return stages


def _evaluate_missing(
    context: Context, unfinished: Sequence[tuple[str, StudentState, Stage]], questions: Sequence[Question]
) -> None:
    """Run what is missing of these stages and finish them."""
    e, size, jobs = context.experiment, context.experiment.evaluate.shard_size, []
    shards = [
        (f"{k:06d}", list(questions[i : i + size])) for k, i in enumerate(range(0, len(questions), size))
    ]
    workers = 1 if len(unfinished) >= e.placement.evaluate_workers else e.placement.evaluate_workers
    for label, student, stage in unfinished:
        forget_attempts(stage.directory)
        todo = [(name, (name, chunk)) for name, chunk in shards if not stage.has(name)]
        make = partial(
            EvaluateHandler,
            student,
            e.evaluate,
            e.verify,
            e.score.target_layer,
            context.needs.num_gpus,
            str(stage.directory),
        )
        if todo:
            jobs.append(Job(f"evaluate {label}", make, todo, min(workers, len(todo)), context.needs))
    if jobs:
        with context.talker.bar(
            "evaluate", sum(len(c) for j in jobs for _, (_, c) in j.shards), "questions"
        ) as bar:
            for result in context.host.pool.run(jobs):
                bar.advance(result.value.items)
    for label, _, stage in unfinished:
        names = [name for name, _ in shards]
        results = pd.concat([stage.read(n) for n in names], ignore_index=True)
        value = float(results["value"].mean())
        stage.finish(
            names, questions=len(results), value=value, cut_off=int((results["finish"] == "length").sum())
        )
        context.say_fallbacks(f"evaluate {label}", stage)
