"""`tutelage study`."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.errors import BadInput
from cluster.own_modules import keep_own_modules
from cluster.storage import Place
from jobs.doors.interruption import interruptible
from jobs.doors.options import Overrides
from jobs.doors.results import make_results
from jobs.doors.run_directory import claim_run_directory
from jobs.run.progress import Terminal

StudyFile = Annotated[Path, typer.Argument(metavar="FILE", help="A study, such as experiments/study.yaml.")]


def study(
    file: StudyFile,
    overrides: Overrides = None,
    part: Annotated[
        list[str] | None,
        typer.Option(help="Only this part, and those that fix a value; several may be given."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Where tables and pictures go; the study's own directory if not said.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the experiments.")] = False,
) -> None:
    """Run many experiments over one store and one Ray, part by part, and write tables and pictures of the
    results. Run it again to continue.
    """
    from jobs.report.study import write_study
    from jobs.run.run import open_host
    from jobs.study.parts import load_study
    from jobs.study.running import Setting, look_at_study, run_study, shared_experiment
    from jobs.study.summary import study_lines

    keep_own_modules([Path.cwd(), file.absolute().parent])
    found = load_study(file, overrides or [])
    for name in part or ():
        if name not in found.parts:
            raise BadInput("the study has no such part", name, ", ".join(found.parts), "")
    terminal = Terminal()
    base = shared_experiment(found)
    if dry_run:
        for line in look_at_study(found, terminal, part or ()):
            terminal.say(line)
        return
    directory = Place(base.runs) / found.name
    host = open_host(base, directory, terminal)
    setting = Setting(found, directory, terminal, host, claim_run_directory, make_results)
    with interruptible(terminal, directory):
        try:
            for done in run_study(setting, part or ()):  # write what exists, in case a later part fails
                page, *_ = write_study(done, Place(out) if out is not None else directory)
        finally:
            host.close()
    for line in study_lines(done):
        terminal.say(line)
    terminal.say(f"study: {page}")
