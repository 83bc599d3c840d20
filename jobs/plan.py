"""What a run would do: per stage what is cached, what remains, and where it would run. Starts no model and no
Ray.

Ids chain, so everything up to the first stage whose output is not there yet is exact; after that counts are
upper bounds, marked with "at most".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.models.rendering import Renderer, Unrenderable
from cluster.placement import Node
from jobs.experiment.schema import MINIATURE, EndpointTeacher, FileTeacher, ModelTeacher
from jobs.files.datasets import Question
from jobs.miniature.world import RECIPES, resolve, world_stage
from jobs.pipeline import load_questions
from jobs.run.context import Context
from jobs.run.store import Stage
from jobs.stages.answers import Ask, Asks
from jobs.stages.ask import ask_again, plan_wave
from jobs.stages.evaluate import evaluate_stage
from jobs.stages.hosted import teacher_renderer
from jobs.stages.pool import pool_ids
from jobs.stages.score import StudentState, first_state, pool_rows, score_stage
from jobs.stages.select import select_stage
from jobs.stages.take import take_file
from jobs.stages.train import Training, train_stage
from jobs.stages.verify import join_pool, references_id, verify_stage
from jobs.systems.paths import path_seed, paths_of


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
        rows.append(
            PlanRow(
                "miniature world",
                _yes(world),
                "" if world.is_finished else f"{len(RECIPES)} models, {steps:,} steps",
                where,
            )
        )
        if not world.is_finished:
            m = context.experiment.miniature
            return rows + _bounds(context, m.train_questions, m.evaluate_questions)
        context.experiment = resolve(context.experiment, world.directory)
    questions, held_out = load_questions(
        context.experiment.questions, context.experiment.limit, context.on_broken
    )
    stages = _generate_rows(context, questions, rows)
    scored = _verify_rows(context, stages, questions, rows)
    made = _made_of_paths(context, scored, held_out)
    return rows + _bounds(context, len(questions), len(held_out), made)


def _made_of_paths(
    context: Context, scored: Mapping[str, tuple[StudentState, Stage]], held_out: list[Question]
) -> tuple[int, int]:
    """How many trainings and evaluations are in the store, by following every path's chain of ids round by
    round.
    """
    e = context.experiment
    trainings = 0
    evaluations = sum(evaluate_stage(context, state, held_out).is_finished for state, _ in scored.values())
    for path in paths_of(e) if scored else []:
        first, first_scores = scored[path.student]
        state, pool = first, {k: v for k, v in first_scores.inputs.items() if k != "student"}
        for number in range(1, e.rounds + 1):
            scores = (
                first_scores if path.arm.cost is None or number == 1 else score_stage(context, state, pool)
            )
            seed = path_seed(e, path, number)
            training = train_stage(
                context, Training("", state, select_stage(context, path.arm, seed, scores), scores, seed)
            )
            if not training.is_finished:
                break
            state = state.after(training)
            trainings += 1
            evaluations += evaluate_stage(context, state, held_out).is_finished
    return trainings, evaluations


def _yes(stage: Stage) -> str:
    return "yes" if stage.is_finished else "no"


def _generate_rows(
    context: Context, questions: Mapping[str, Question], rows: list[PlanRow]
) -> dict[str, Stage]:
    """One row per teacher; a file teacher is read, which is all it costs."""
    e = context.experiment
    asks = Asks(Ask(q.id, q.text, q.system, s) for q in questions.values() for s in range(e.generate.samples))
    stages, totals = {}, list[Left]()
    for teacher in e.teachers:
        if isinstance(teacher, FileTeacher):
            taken = stages[teacher.name] = take_file(context, teacher, questions)
            rows.append(
                PlanRow(
                    f"generate {teacher.name}",
                    _yes(taken),
                    f"read from {Path(teacher.path).name}",
                    "this process",
                )
            )
            continue
        wave = plan_wave(context, teacher, asks, teacher.name)
        stages[teacher.name] = wave.stage
        if wave.stage.is_finished:
            stages |= {name: again.stage for name, again in ask_again(context, teacher.name, wave)}
        shards = wave.shards(e.generate.shard_size)
        left = [] if wave.stage.is_finished else [s for s in shards if not wave.stage.has(s[0])]
        found = _left(context, teacher, left)
        totals += [found] if left else []
        place = _place(context, teacher)
        rows.append(PlanRow(f"generate {teacher.name}", _yes(wave.stage), str(found) if left else "", place))
    if len(totals) > 1:
        usd = [left.most_usd for left in totals if left.most_usd is not None]
        count, prompt = sum(left.shards for left in totals), sum(left.prompt_tokens for left in totals)
        together = Left(count, prompt, sum(left.most_tokens for left in totals), sum(usd) if usd else None)
        rows.append(PlanRow(f"generate, {len(totals)} teachers", "no", str(together), ""))
    return stages


@dataclass(frozen=True)
class Left:
    """What is still to be asked of one teacher: prompt tokens (exact for a local one), and the most its
    answers can take.
    """

    shards: int
    prompt_tokens: int
    most_tokens: int
    most_usd: float | None

    def __str__(self) -> str:
        about = "" if self.most_usd is None else "about "
        usd = "" if self.most_usd is None else f", at most {self.most_usd:,.2f} USD"
        return (
            f"{self.shards:,} shards, {about}{self.prompt_tokens:,} prompt tokens, at most "
            f"{self.most_tokens:,} answer tokens{usd}"
        )


def _left(
    context: Context, teacher: ModelTeacher | EndpointTeacher, left: Sequence[tuple[str, Sequence[Ask]]]
) -> Left:
    asks, most = (
        (a for _, chunk in left for a in chunk),
        sum(len(c) for _, c in left) * context.experiment.generate.max_new_tokens,
    )
    if isinstance(teacher, EndpointTeacher):
        prompt = sum(len(a.text) // 4 + 8 for a in asks)
        usd = (
            prompt * teacher.usd_per_million_input_tokens + most * teacher.usd_per_million_output_tokens
        ) / 1e6
        return Left(len(left), prompt, most, usd)
    renderer = teacher_renderer(teacher)
    return Left(len(left), sum(_prompt_tokens(renderer, a.text, a.system) for a in asks), most, None)


def _prompt_tokens(renderer: Renderer, text: str, system: str | None) -> int:
    """Tokens of a prompt; 0 for one that cannot be rendered and so will not be asked."""
    try:
        return len(renderer.prompt(text, system))
    except Unrenderable:
        return 0


def _place(context: Context, teacher: ModelTeacher | EndpointTeacher) -> str:
    if isinstance(teacher, EndpointTeacher):
        return f"{teacher.base_url}, {teacher.concurrency} calls at once"
    needs, have = teacher.needs, context.host.room
    fits = "" if have is None or needs.fits_on(Node(have)) else "  DOES NOT FIT this machine"
    return f"{teacher.replicas} × ({needs}){fits}"


def _verify_rows(
    context: Context, generated: Mapping[str, Stage], questions: Mapping[str, Question], rows: list[PlanRow]
) -> dict[str, tuple[StudentState, Stage]]:
    """Verify and first-round score rows, exact once the answers exist; returns student name -> first state
    and score stage.

    With `until_verified` the pool depends on answers that are still to come, so nothing after verification
    can be named.
    """
    e = context.experiment
    references = references_id(questions)
    verified = {name: verify_stage(context, stage, references) for name, stage in generated.items()}
    done = sum(s.is_finished for s in verified.values())
    rows.append(
        PlanRow(
            "verify",
            f"{done} of {len(verified)}",
            "" if done == len(verified) else "the rest",
            "one actor per teacher's answers",
        )
    )
    place = f"{e.placement.score_workers} × ({context.needs})"
    if (
        done < len(verified)
        or e.generate.until_verified
        or not all(s.is_finished for s in generated.values())
    ):
        most = (
            len(questions)
            * len(e.teachers)
            * max(e.generate.samples, e.generate.max_samples if e.generate.until_verified else 1)
        )
        rows.append(PlanRow("score, round 1", "no", f"at most {most * len(e.students):,} answers", place))
        return {}
    answers = join_pool(list(generated.values()), list(verified.values()), questions)
    ids = pool_ids(questions, verified)
    found = pool_rows(answers, questions)
    scored = {}
    for student in e.students:
        state = first_state(student)
        stage = score_stage(context, state, ids)
        scored[student.name] = (state, stage)
        left = ""
        if not stage.is_finished:
            renderer = state.renderer()
            prompts = {r.question_id: _prompt_tokens(renderer, r.question, r.system) for r in found}
            tokens = sum(
                len(renderer.tokenizer(r.answer)["input_ids"]) + prompts[r.question_id] for r in found
            )
            left = f"{len(found):,} answers, about {tokens:,} tokens"
        rows.append(PlanRow(f"score {student.name}, round 1", _yes(stage), left, place))
    return scored


def _bounds(
    context: Context, questions: int, held_out: int, made: tuple[int, int] | None = None
) -> list[PlanRow]:
    """What follows from counts alone, and of that what is `made`: trainings and evaluations; None when
    nothing is known yet.
    """
    e = context.experiment
    rows = []
    if made is None:
        answers = questions * len(e.teachers) * e.generate.samples
        shards = -(-questions * e.generate.samples // e.generate.shard_size) * len(e.teachers)
        names = (
            "the world's models"
            if any(getattr(t, "path", "").startswith(MINIATURE) for t in e.teachers)
            else "teachers"
        )
        rows.append(
            PlanRow("generate", "no", f"{shards} shards, {answers:,} answers of {names}", "see placement")
        )
        rows.append(
            PlanRow(
                "score",
                "no",
                f"at most {answers * len(e.students):,} answers in round 1",
                f"{e.placement.score_workers} actors",
            )
        )
    paths = len(e.students) * len(e.arms) * e.seeds
    per_epoch = max(1, questions // e.train.batch_size)
    steps = e.train.steps or max(1, round(per_epoch * e.train.epochs))
    p = e.placement
    train_place = f"{p.train_workers} train workers × ({context.needs}), ZeRO {e.train.zero_stage}"
    trainings, evaluations = paths * e.rounds, paths * e.rounds + len(e.students)
    trained, evaluated = made or (0, 0)
    text = f"{trainings - trained} trainings of at most {steps:,} steps" if trained < trainings else ""
    rows.append(PlanRow("train, all rounds", f"{trained} of {trainings}", text, train_place))
    left = evaluations - evaluated
    most = left * held_out * (e.evaluate.max_new_tokens if e.evaluate.metric == "accuracy" else 0)
    text = (
        f"{left} students × {held_out:,} questions" + (f", at most {most:,} tokens" if most else "")
        if left
        else ""
    )
    rows.append(
        PlanRow(
            "evaluate", f"{evaluated} of {evaluations}", text, f"{p.evaluate_workers} × ({context.needs})"
        )
    )
    return rows
