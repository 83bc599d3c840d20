"""What a run would do: per stage what is cached, what remains, and where it would run. Starts no model and no Ray.

Ids chain, so everything up to the first stage whose output is not there yet is exact; after that counts are upper bounds,
marked with "at most".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.loading import load_tokenizer
from cluster.pool import Needs
from cluster.rendering import Renderer
from jobs.context import Context
from jobs.datasets import Question
from jobs.experiment import MINIATURE, EndpointTeacher, FileTeacher, ModelTeacher
from jobs.generate import Ask, plan_wave, take_file, teacher_source
from jobs.miniature import RECIPES, resolve, world_stage
from jobs.pipeline import load_questions
from jobs.score import first_state, pool_rows, score_stage
from jobs.store import Stage, digest
from jobs.verify import join_pool, verify_stage


@dataclass(frozen=True)
class PlanRow:
    """One line of the plan."""

    stage: str
    cached: str
    remaining: str
    placement: str


def make_plan(context: Context) -> list[PlanRow]:
    """The plan of a run, stage by stage."""
    rows: list[PlanRow] = []
    if context.experiment.miniature is not None:
        world = world_stage(context, context.experiment.miniature)
        steps = round(sum(r.steps for r in RECIPES) * context.experiment.miniature.scale)
        where = f"{context.experiment.placement.train_workers} train workers"
        rows.append(PlanRow("miniature world", _yes(world), "" if world.is_finished else f"{len(RECIPES)} models, {steps:,} steps", where))
        if not world.is_finished:
            m = context.experiment.miniature
            return rows + _bounds(context, m.train_questions, m.evaluate_questions)
        context.experiment = resolve(context.experiment, world.directory)
    questions, held_out = load_questions(context.experiment.questions, context.experiment.limit, context.on_broken)
    stages = _generate_rows(context, questions, rows)
    _verify_rows(context, stages, questions, rows)
    return rows + _bounds(context, len(questions), len(held_out), from_stage="train")


def _yes(stage: Stage) -> str:
    return "yes" if stage.is_finished else "no"


def _generate_rows(context: Context, questions: Mapping[str, Question], rows: list[PlanRow]) -> dict[str, Stage]:
    """One row per teacher; a file teacher is read, which is all it costs."""
    e = context.experiment
    asks = [Ask(q.id, q.text, q.system, s) for q in questions.values() for s in range(e.generate.samples)]
    stages = {}
    for teacher in e.teachers:
        label = f"generate {teacher.name}"
        if isinstance(teacher, FileTeacher):
            stages[label] = take_file(context, teacher, questions)
            rows.append(PlanRow(label, "yes", f"read from {Path(teacher.path).name}", "this process"))
            continue
        wave = plan_wave(context, teacher, asks, label)
        stages[label] = wave.stage
        shards = wave.shards(e.generate.shard_size)
        left = [] if wave.stage.is_finished else [s for s in shards if not wave.stage.has(s[0])]
        rows.append(PlanRow(label, _yes(wave.stage), _tokens_left(context, teacher, left), _place(context, teacher)))
    return stages


def _tokens_left(context: Context, teacher: ModelTeacher | EndpointTeacher, left: list[tuple[str, list[Ask]]]) -> str:
    """Shards, prompt tokens (exact for a local teacher) and the most tokens and money the answers can take."""
    asks = [a for _, chunk in left for a in chunk]
    if not asks:
        return ""
    most = len(asks) * context.experiment.generate.max_new_tokens
    if isinstance(teacher, EndpointTeacher):
        prompt = sum(len(a.text) // 4 + 8 for a in asks)
        usd = (prompt * teacher.usd_per_million_input_tokens + most * teacher.usd_per_million_output_tokens) / 1e6
        return f"{len(left)} shards, about {prompt:,} prompt tokens, at most {most:,} answer tokens, at most {usd:,.2f} USD"
    renderer = Renderer(load_tokenizer(teacher_source(teacher)), teacher.chat_template)
    prompt = sum(len(renderer.prompt(a.text, a.system)) for a in asks)
    return f"{len(left)} shards, {prompt:,} prompt tokens, at most {most:,} answer tokens"


def _place(context: Context, teacher: ModelTeacher | EndpointTeacher) -> str:
    if isinstance(teacher, EndpointTeacher):
        return f"{teacher.base_url}, {teacher.concurrency} calls at once"
    needs, have = Needs(teacher.num_cpus, teacher.num_gpus), context.room
    fits = "" if have is None or needs.fits(have) else "  DOES NOT FIT this machine"
    return f"{teacher.replicas} × ({needs}){fits}"


def _verify_rows(context: Context, generated: Mapping[str, Stage], questions: Mapping[str, Question], rows: list[PlanRow]) -> None:
    """Verify and first-round score rows, exact once the answers exist."""
    e = context.experiment
    verified = {label: verify_stage(context, stage, questions) for label, stage in generated.items()}
    done = sum(s.is_finished for s in verified.values())
    rows.append(
        PlanRow("verify", f"{done} of {len(verified)}", "" if done == len(verified) else "the rest", "one actor per teacher's answers")
    )
    place = f"{e.placement.score_workers} × ({context.needs})"
    if done < len(verified) or not all(s.is_finished for s in generated.values()):
        most = len(questions) * len(e.teachers) * max(e.generate.samples, e.generate.max_samples if e.generate.until_verified else 1)
        rows.append(PlanRow("score, round 1", "no", f"at most {most * len(e.students):,} answers", place))
        return
    answers = join_pool(list(generated.values()), list(verified.values()), questions)
    content = digest([(q.id, q.text, q.system) for q in questions.values()])
    ids = {"questions": content, **{label: stage.id for label, stage in sorted(verified.items())}}
    found = pool_rows(answers, questions)
    for student in e.students:
        state = first_state(student, e.score.compat)
        stage = score_stage(context, state, ids)
        left = ""
        if not stage.is_finished:
            renderer = state.renderer(e.score.compat)
            prompts = {r.question_id: len(renderer.prompt(r.question, r.system)) for r in found}
            tokens = sum(len(renderer.tokenizer(r.answer)["input_ids"]) + prompts[r.question_id] for r in found)
            left = f"{len(found):,} answers, about {tokens:,} tokens"
        rows.append(PlanRow(f"score {student.name}, round 1", _yes(stage), left, place))


def _bounds(context: Context, questions: int, held_out: int, from_stage: str = "generate") -> list[PlanRow]:
    """What follows from counts alone."""
    e = context.experiment
    rows = []
    if from_stage == "generate":
        answers = questions * len(e.teachers) * e.generate.samples
        shards = -(-questions * e.generate.samples // e.generate.shard_size) * len(e.teachers)
        names = "the world's models" if any(getattr(t, "path", "").startswith(MINIATURE) for t in e.teachers) else "teachers"
        rows.append(PlanRow("generate", "no", f"{shards} shards, {answers:,} answers of {names}", "see placement"))
        rows.append(
            PlanRow("score", "no", f"at most {answers * len(e.students):,} answers in round 1", f"{e.placement.score_workers} actors")
        )
    paths = len(e.students) * len(e.arms) * e.seeds
    per_epoch = max(1, questions // e.train.batch_size)
    steps = e.train.steps or max(1, round(per_epoch * e.train.epochs))
    p = e.placement
    train_place = f"{p.train_workers} train workers × ({context.needs}), ZeRO {e.train.zero_stage}"
    rows.append(PlanRow(f"train, {e.rounds} rounds", "", f"{paths * e.rounds} trainings of at most {steps:,} steps", train_place))
    evaluations = paths * e.rounds + len(e.students)
    most = evaluations * held_out * (e.evaluate.max_new_tokens if e.evaluate.metric == "accuracy" else 0)
    text = f"{evaluations} students × {held_out:,} questions" + (f", at most {most:,} tokens" if most else "")
    rows.append(PlanRow("evaluate", "", text, f"{p.evaluate_workers} × ({context.needs})"))
    return rows
