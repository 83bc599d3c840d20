"""Asking a model that an actor hosts: loaded once, sampled in batches, every shard written as a part."""

from collections.abc import Sequence

import pandas as pd

from cluster.errors import describe
from cluster.metrics import Tally
from cluster.models.loading import ModelSource, load_model, load_tokenizer, pick_device, pinned
from cluster.models.proof import SAMPLING, prove
from cluster.models.rendering import Renderer, Unrenderable
from cluster.models.sampling import Sampling, generation_stop_ids, sample
from cluster.seeds import derive_seed
from cluster.storage import Place
from jobs.experiment.schema import Generate, ModelTeacher
from jobs.run.quarantine import run_isolated
from jobs.run.store import write_fallbacks, write_table
from jobs.stages.answers import ANSWER_COLUMNS, Ask, answer_id, answer_row, tally_of


def teacher_source(teacher: ModelTeacher) -> ModelSource:
    return pinned(ModelSource(teacher.path, teacher.dtype, teacher.revision, teacher.trust_remote_code))


def teacher_renderer(teacher: ModelTeacher) -> Renderer:
    """The renderer of what a hosted teacher is asked."""
    tokenizer = load_tokenizer(teacher_source(teacher))
    return Renderer(tokenizer, teacher.chat_template, template_kwargs=teacher.chat_template_kwargs)


class ModelAsker:
    """Handler in a hosting actor: loads the teacher once, answers shards, writes each as a part."""

    def __init__(self, teacher: ModelTeacher, settings: Generate, seed: int, directory: str) -> None:
        source = teacher_source(teacher)
        self.teacher, self.settings, self.seed, self.directory = teacher, settings, seed, Place(directory)
        self.model = load_model(source, pick_device(teacher.num_gpus))
        self.proof = prove(self.model, SAMPLING)
        write_fallbacks(self.directory, self.proof.lines)
        self.renderer = teacher_renderer(teacher)
        self.renderer.prove()

    def __call__(self, shard: tuple[str, list[Ask]]) -> Tally:
        part, asks = shard
        table = run_isolated(self.directory, part, asks, self._id, self._answers, self._give_up)
        write_table(self.directory / f"{part}.parquet", table)
        return tally_of(table)

    def _id(self, ask: Ask) -> str:
        return answer_id(self.teacher.name, ask.question_id, ask.sample)

    def _give_up(self, ask: Ask, reason: str) -> pd.DataFrame:
        return pd.DataFrame(
            [answer_row(self.teacher.name, ask, "", "failed", reason)], columns=ANSWER_COLUMNS
        )

    def _answers(self, asks: Sequence[Ask]) -> pd.DataFrame:
        prompts, rows = [], {}
        for ask in asks:
            try:
                prompts.append((ask, self.renderer.prompt(ask.text, ask.system)))
            except Unrenderable as error:
                rows[ask] = answer_row(self.teacher.name, ask, "", "failed", str(error))
        s = self.settings
        stop_ids = self.renderer.stop_ids | generation_stop_ids(self.model)
        sampling = Sampling(s.max_new_tokens, stop_ids, s.temperature, s.top_p, way=self.proof.way)
        seeds = [derive_seed(self.seed, self._id(a)) for a, _ in prompts]
        completions = sample(self.model, [ids for _, ids in prompts], sampling, seeds)
        for (ask, ids), completion in zip(prompts, completions, strict=True):
            if isinstance(completion, Exception):
                rows[ask] = answer_row(
                    self.teacher.name, ask, "", "failed", describe(completion), (len(ids), 0)
                )
                continue
            text = self.renderer.answer_text(completion.ids)
            rows[ask] = answer_row(
                self.teacher.name, ask, text, completion.finish, "", (len(ids), len(completion.ids))
            )
        return pd.DataFrame([rows[a] for a in asks], columns=ANSWER_COLUMNS)
