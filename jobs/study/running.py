"""Running a study: its parts in order. Every experiment is an ordinary run, and all share one store and one
Ray.

Finished work is found in the store, so a study that was stopped continues where it stopped.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from cluster.errors import BadInput
from cluster.storage import Place
from jobs.experiment.miniature import MINIATURE
from jobs.experiment.parsing import parse_experiment
from jobs.experiment.schema import Experiment
from jobs.experiment.study import Part, Study, sources_of
from jobs.files.rows import check_source
from jobs.miniature.full import WORLD
from jobs.miniature.world import build_world, models_of
from jobs.results.outcome import Outcome
from jobs.run.host import Host
from jobs.run.progress import Terminal
from jobs.run.run import Run, Unmade, open_run
from jobs.study.comparisons import corrected
from jobs.study.learning import learn
from jobs.study.parts import Cell, Members, Values, cells_of, members_of, taken, told
from jobs.study.tables import CellResult, Tables, fixed_value, part_tables, result_of

# Runs an experiment, writes its report into its directory, and returns its outcome.
RunOne = Callable[[Run, Experiment], Outcome]


@dataclass
class Found:
    """The results of a study so far.

    Attributes:
        tables: the tables of each part.
        fixed: for each key that a part fixed: the part, the key, the value, and the table that it was chosen
            by.
        world: the models of the miniature world. Empty unless the study uses a full world.
    """

    study: Study
    tables: dict[str, Tables] = field(default_factory=dict)
    fixed: list[tuple[str, str, object, pd.DataFrame]] = field(default_factory=list)
    world: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class Setting:
    """The means to run a study: where it runs, how run directories are claimed, and how one experiment is
    run.
    """

    study: Study
    directory: Place
    terminal: Terminal
    host: Host
    claim: Callable[[Experiment], Place]
    run_one: RunOne


def run_study(setting: Setting, only: Sequence[str] = ()) -> Iterator[Found]:
    """Run some or all parts of a study, in order. Yields the results so far after each part.

    Args:
        only: the parts to run. Parts that they depend on are run too: those that fix a value, and those whose
            learned cost is used. Empty for all parts.

    Raises:
        BadInput: a part is not valid. Nothing has been run then, except that the miniature world may have
            been built.
    """
    study, say = setting.study, setting.terminal.say
    place = world_of(setting)
    world = world_table(place)
    members = members_of(study, {} if place is None else models_of(place), lineages_in(world))
    found = Found(study, world=world)
    check_parts(study, members)  # before the first is run
    fixed: Values = ()
    learned: dict[str, dict[str, float]] = {}
    for name, part in study.parts.items():
        if only and name not in needed_by(study, only):
            continue
        cells = cells_of(study, name, members, fixed, learned)
        trainings = sum(cell.trainings for cell in cells)
        say(f"part {name}: {len(cells)} experiments, {trainings:,} trainings")
        each = [run_cell(setting, cell) for cell in cells]
        tables = part_tables(each)
        found.tables[name] = replace(tables, comparisons=corrected(tables.comparisons))
        if part.learns is not None:
            try:
                seed = cells[0].experiment.seed
                found.tables[name], learned[name] = learn(found.tables[name], part.learns, seed)
            except BadInput as error:  # the part's tables are kept
                say(f"part {name} learned no cost: {error}")
        for key, arms in part.fixing.items():
            value, chosen_by, paths = fixed_value(cells, [result.tables for result in each], key, arms)
            say(
                f"part {name} fixes {key} at {told(value)}, by {' and '.join(arms)} alone "
                f"({paths} paths that came to their end under every value)"
            )
            fixed = (*(f for f in fixed if f[0] != key), (key, value))
            found.fixed.append((name, key, value, chosen_by))
        yield found


def check_parts(study: Study, members: Members) -> dict[str, list[Cell]]:
    """Make the experiments of all parts before any of them is run. For a value that an earlier part will fix
    the first of its crossed values stands.

    Raises:
        BadInput: a part is not valid with it, or a file of questions is not there.
    """
    directories: dict[str, str] = {"logs": "the study's logs"}
    fixed, found = Values(), dict[str, list[Cell]]()
    for name, part in study.parts.items():
        found[name] = cells_of(study, name, members, fixed)
        for cell in found[name]:
            check_learns(name, part, cell)
            if directories.setdefault(cell.experiment.name, name) != name:
                raise BadInput(
                    f"parts {directories[cell.experiment.name]} and {name} would share a directory",
                    cell.experiment.name,
                    "names that no crossed part's experiments have: NAME-0, NAME-1 …",
                    "rename one of them",
                )
            for path in (cell.experiment.questions.train, cell.experiment.questions.evaluate):
                if not path.startswith(MINIATURE):
                    check_source(path, "questions")
        fixed = (*(f for f in fixed if f[0] not in part.fixes), *((k, part.cross[k][0]) for k in part.fixes))
    return found


def needed_by(study: Study, only: Sequence[str]) -> set[str]:
    """The names of these parts and of those that they depend on: parts that fix a value, and parts whose
    learned cost is used.
    """
    needed = {*only, *(name for name, part in study.parts.items() if part.fixes)}
    while True:
        more = {source for name in needed for source in sources_of(study.parts[name])}
        if more <= needed:
            return needed
        needed |= more


def check_learns(name: str, part: Part, cell: Cell) -> None:
    """Refuse a part that cannot learn a cost, before anything is run: some students must remain to evaluate
    the cost on, and there must be two teachers.

    Raises:
        BadInput: the part cannot learn a cost.
    """
    if part.learns is None:
        return
    students = [{"name": s.name} for s in cell.experiment.students]
    some = taken(students, part.learns.students, f"part {name}, learns: students")
    if len(some) == len(students) or len(cell.experiment.teachers) < 2:
        raise BadInput(
            f"part {name} cannot learn a cost",
            f"{len(some)} of {len(students)} students, {len(cell.experiment.teachers)} teachers",
            "some of the students, and two teachers or more",
            "change learns",
        )


def run_cell(setting: Setting, cell: Cell) -> CellResult:
    """Run one experiment of a part. Returns its result."""
    directory = setting.claim(cell.experiment)
    setting.terminal.say(f"{cell.experiment.name}" + (f": {cell.label}" if cell.label else ""))
    with open_run(cell.experiment, directory, setting.terminal, host=setting.host) as run:
        outcome = setting.run_one(run, cell.experiment)
        return result_of(cell, outcome, setting.study.parts[cell.part].compare_with)


def world_of(setting: Setting) -> Place | None:
    """The place of the study's miniature world, which is built if it does not exist. None if the study has no
    world.
    """
    base = shared_experiment(setting.study)
    if base.miniature is None:
        return None
    with open_run(base, setting.directory, setting.terminal, host=setting.host, part="world") as run:
        return build_world(run, base.miniature, base.placement)


def shared_experiment(study: Study) -> Experiment:
    """The settings that all parts share, as an experiment. Placeholders stand for the arms, teachers and
    students that parts set.
    """
    nobody = {"name": "nobody", "path": "miniature:nobody"}
    tree = {
        **study.experiment,
        "name": study.name,
        "arms": [{"name": "random", "rule": "random"}],
        "teachers": study.experiment.get("teachers") or [nobody],
        "students": study.experiment.get("students") or [nobody],
        "evaluate": {**(study.experiment.get("evaluate") or {}), "baseline": None},
    }
    return parse_experiment(tree)


def world_table(place: Place | None) -> pd.DataFrame:
    """The models of a full or pretrained world, one in each row, without the places of their weights. Empty
    if there is no such world.
    """
    if place is None or not (place / WORLD).is_file():
        return pd.DataFrame()
    told_of = json.loads((place / WORLD).read_text())
    rows = [{"kind": kind, **one} for kind in ("teacher", "student") for one in told_of[f"{kind}s"]]
    return pd.DataFrame(rows).drop(columns=["path", "weights"], errors="ignore")


def lineages_in(world: pd.DataFrame) -> dict[str, str]:
    """The lineage of each model of a world: models that come from one training from nothing, or from one
    pretrained model, share it.
    """
    rows = {str(row["name"]): row for row in world.to_dict("records")}
    if "base" in world.columns:
        return {name: str(row["base"]) for name, row in rows.items()}
    return {
        name: f"{row['language']}-{row['width']}{'-wordy' if row['wordy'] else ''}"
        for name, row in rows.items()
    }


def look_at_study(study: Study, terminal: Terminal, only: Sequence[str] = ()) -> list[str]:
    """Lines about the experiments that a study, or some of its parts, would run. Starts nothing. The
    miniature world must exist already, because its models have no names before.

    Raises:
        BadInput: a part is not valid.
    """
    base = shared_experiment(study)
    wanted = [name for name in study.parts if not only or name in needed_by(study, only)]
    with open_run(base, Place(base.runs) / study.name, terminal, "plan") as run:
        try:
            place = build_world(run, base.miniature, base.placement) if base.miniature is not None else None
        except Unmade as unmade:
            return [f"{unmade}: its members have no names yet", *wanted]
    members = members_of(study, {} if place is None else models_of(place), lineages_in(world_table(place)))
    lines, every = list[str](), check_parts(study, members)
    for name in wanted:
        cells = every[name]
        lines.append(f"{name}: {len(cells)} experiments, {sum(c.trainings for c in cells):,} trainings")
        lines += [f"  {c.experiment.name}: {c.label}" for c in cells if c.label]
    return lines
