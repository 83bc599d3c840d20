"""Making the world of agents: teachers that call tools, the traces that they really write, and questions
about single turns. The teachers are made from SmolLM2 as in the pretrained world, each in its own manner.

An agent is asked for its next turn until it calls nothing more. Each turn of all agents is one harvest, so
what was asked before a kill is not asked again.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from cluster.models.loading import ModelSource, load_tokenizer
from cluster.models.messages import Conversation, Message, Prompt
from cluster.models.rendering import Renderer
from cluster.storage import Place
from jobs.experiment.miniature import Miniature
from jobs.experiment.placement import Placement
from jobs.experiment.students import Student
from jobs.miniature.full import WORLD
from jobs.miniature.making import scaled
from jobs.miniature.pretrained.agents import (
    MANNERS,
    SYSTEMS,
    TOLD,
    TOOLS,
    Task,
    call_in,
    draw_tasks,
    next_turn,
    result_turn,
    trace,
)
from jobs.miniature.pretrained.recipe import BATCH, Line
from jobs.miniature.pretrained.weights import SMOLLM2
from jobs.miniature.pretrained.world import (
    BASE,
    Base,
    Member,
    export_of,
    one_by_one,
    train_lines,
    write_bases,
)
from jobs.run.run import Run
from jobs.run.store import Stage, digest
from jobs.run.tables import KEY
from jobs.stages.answers import Ask, request_of
from jobs.stages.ask import Hosted, Wave, ask
from jobs.stages.hosted import Draw
from jobs.stages.states import first_state
from training.data import Example, write_examples
from training.job import WEIGHTS

SHARED, TOGETHER, ALONE = "agents", 24, 6  # steps of the training in all manners, and of each manner's own
MOST_TURNS, MOST_TOKENS = 8, 96  # of a trace, and of one turn
TEMPERATURE = 0.7  # at which teachers write their turns
SHARD = 40


def lines() -> list[Line]:
    """The training in all manners, and those in one manner that go on from it."""
    shared = Line(SHARED, SMOLLM2.name, tuple(MANNERS), (TOGETHER,), {})
    own = [Line(m, SMOLLM2.name, (m,), (ALONE,), {}, (SHARED, TOGETHER)) for m in MANNERS]
    return [shared, *own]


def recipe_of_agents() -> object:
    """Everything that a world depends on except its seed and its numbers of questions."""
    tasks = [task for part in ("train", "evaluate") for task in draw_tasks(100, 0, part)]  # type: ignore[arg-type]
    texts = [[t.question, [turn.content for m in MANNERS for turn in trace(t, m)]] for t in tasks]
    about = [SMOLLM2.sha256, TOOLS, SYSTEMS, MOST_TURNS, MOST_TOKENS, TEMPERATURE]
    return [[asdict(line) for line in lines()], about, digest(texts)]


def make_agents(run: Run, settings: Miniature, stage: Stage, placement: Placement) -> None:
    """Write the world's questions, make its teachers, and let them write traces."""
    place = stage.directory
    tasks = draw_tasks(settings.train_questions, settings.seed, "train")
    judged = draw_tasks(settings.evaluate_questions, settings.seed, "evaluate")
    write_rows(place / "train.jsonl", [asked(task) for task in tasks])
    write_rows(place / "evaluate.jsonl", [of_one_turn(k, task) for k, task in enumerate(judged)])
    write_bases(run, place, [SMOLLM2.name])
    held = frozenset(task.id for task in (*tasks, *judged))
    shared, *own = every = lines()
    for wanted, where in (([shared], one_by_one(placement)), (own, placement)):
        train_lines(run, place, settings, every, wanted, held, where, write_traces)
    teachers = {line.name: place / export_of(line, ALONE, settings) for line in own}
    written = let_work(run, teachers, tasks, settings.seed, placement)
    members = []
    for name, traces in written.items():
        path = f"traces/{name}.jsonl"
        write_rows(place / path, traces)
        right = sum(bool(row["is_right"]) for row in traces) / len(traces)
        members.append(Member(name, path, SMOLLM2.name, name, right))
    student = Member("smol", f"{BASE}/{SMOLLM2.name}/{WEIGHTS}", SMOLLM2.name, "", 0.0)
    world = {"teachers": [asdict(m) for m in members], "students": [asdict(student)], "left_out": []}
    (place / WORLD).write_bytes(json.dumps(world, indent=1).encode())
    stage.finish([], teachers=len(members), traces=sum(map(len, written.values())))
    for line in every:
        (place / export_of(line, line.exports[-1], settings)).remove()  # each is half a gigabyte


def write_rows(place: Place, rows: Sequence[Mapping[str, object]]) -> None:
    place.write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode())


def asked(task: Task) -> dict[str, object]:
    """A task as a row of the questions' file."""
    return {
        "id": task.id,
        "system": TOOLS,
        "question": task.question,
        "reference": str(task.result),
        "family": f"{len(task.calls)} calls",
    }


def of_one_turn(k: int, task: Task) -> dict[str, object]:
    """A held-out row: what an agent has seen before one of its turns, and what that turn has to end with. The
    manners take turns, so that none of them is judged in its own words alone.
    """
    manner = list(MANNERS)[k % len(MANNERS)]
    number = random.Random(task.id).randrange(len(task.calls) + 1)
    prompt, reference = next_turn(task, manner, number)
    return {
        "id": task.id,
        "prompt": prompt.for_template(),
        "reference": reference,
        "family": f"after {manner}",
    }


def write_traces(
    place: Place, line: Line, settings: Miniature, base: Base, held: frozenset[str], k: int
) -> None:
    """Runs in a worker. Draws a line's tasks and writes their traces as examples."""
    renderer = Renderer(load_tokenizer(ModelSource(str(base.weights))))
    rows = BATCH * scaled(max(line.exports), settings)  # each example once
    rng, examples = random.Random(settings.seed * 1000 + k), list[Example]()
    for task in draw_tasks(rows, settings.seed * 1000 + 500 + k, "train", held):
        manner = rng.choice(line.manners)
        system = f"{TOOLS} {SYSTEMS[manner]}" if len(line.manners) > 1 else TOOLS
        r = renderer.trajectory(task.prompt(system=system), trace(task, manner))
        gaps = tuple((a[1], b[0]) for a, b in zip(r.spans, r.spans[1:], strict=False))
        examples.append(Example(r.ids, r.prompt_length, r.answer_end, gaps=gaps))
    write_examples(place, examples)


@dataclass(frozen=True)
class Work:
    """An agent at a task.

    Attributes:
        turns: all turns so far after the question.
        is_done: whether it has called nothing in its last turn, or may not go on.
    """

    task: Task
    turns: Conversation = ()
    is_done: bool = False

    @property
    def prompt(self) -> Prompt:
        return self.task.prompt(self.turns)

    def told(self, text: str, finish: str) -> "Work":
        """After a turn of the agent: its call is answered, if it calls something."""
        turn = Message("assistant", text.strip() or "(nothing)")
        call = call_in(text) if finish == "stop" else None
        if call is None or len(self.turns) + 2 > 2 * (MOST_TURNS - 1):
            return replace(self, turns=(*self.turns, turn), is_done=True)
        return replace(self, turns=(*self.turns, turn, result_turn(self.task.answered(call))))

    def row(self) -> dict[str, object]:
        """The trace in OpenAI's words."""
        last = TOLD.findall(self.turns[-1].content)
        is_right = last[-1:] == [str(self.task.result)]
        return {"id": self.task.id, "messages": self.prompt.for_template(), "is_right": is_right}


def let_work(
    run: Run, teachers: Mapping[str, Place], tasks: Sequence[Task], seed: int, placement: Placement
) -> dict[str, list[dict[str, object]]]:
    """Let every teacher do every task. Returns its traces by its name."""
    draw = Draw(TEMPERATURE, 1.0, MOST_TOKENS, seed)
    states = {name: first_state(Student(name=name, path=str(path))) for name, path in teachers.items()}
    hosted = {name: Hosted(s, 1, placement.needs, is_student=False) for name, s in states.items()}
    works = {name: [Work(task) for task in tasks] for name in teachers}
    for number in range(1, MOST_TURNS + 1):
        asks = {n: [Ask(w.prompt, 0) for w in own if not w.is_done] for n, own in works.items()}
        labels = {f"{name} turn {number}": name for name, own in asks.items() if own}
        waves = {label: Wave(hosted[n], draw, request_of(asks[n])) for label, n in labels.items()}
        for label, view in ask(run, "trace", waves, SHARD).items():
            columns = (view.read()[name].tolist() for name in (KEY, "text", "finish"))
            said = {key: (text, finish) for key, text, finish in zip(*columns, strict=True)}
            works[labels[label]] = [
                w if w.is_done else w.told(*said[Ask(w.prompt, 0).key]) for w in works[labels[label]]
            ]
    return {name: [work.row() for work in own] for name, own in works.items()}
