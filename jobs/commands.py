"""The command line: verb first, an experiment file, dotted overrides; each stage also alone, on the user's
own files.
"""

import errno
import sys
from pathlib import Path
from typing import Annotated

import typer

from cluster.errors import TutelageError
from cluster.extras import extras_named
from cluster.own_modules import keep_own_modules
from cluster.threads import wait_asleep
from jobs import __version__
from jobs.doors.cluster_jobs import status, stop, submit
from jobs.doors.gc import gc
from jobs.doors.interruption import signals_as_interrupts, told_when_interrupted
from jobs.doors.look import export, plan, replay, report
from jobs.doors.miniature import miniature
from jobs.doors.quickstart import quickstart
from jobs.doors.relay import relay
from jobs.doors.run import run
from jobs.doors.standalone import audit, rank, score, select, verify
from jobs.doors.study import study
from jobs.doors.sweep import sweep
from jobs.run.progress import printable

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)
DISK_PROBLEMS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


class _Options:
    """Options of the whole program."""

    debug = False


@app.callback(invoke_without_command=True)
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Choose, for every question, the verified teacher answer that suits this student now; train on it; say
    whether it helped.
    """
    _Options.debug = debug
    if version:
        print(__version__)
        raise typer.Exit


DOORS = (
    quickstart,
    run,
    plan,
    sweep,
    study,
    submit,
    status,
    stop,
    export,
    report,
    replay,
    relay,
    gc,
    miniature,
)
STAGES_ALONE = (score, rank, select, verify, audit)
for door in (*DOORS, *STAGES_ALONE):  # in the order of --help
    app.command()(told_when_interrupted(door))


def main() -> None:
    """Entry of `tutelage` and `python -m jobs`: one line for a failure the user can mend, the traceback
    behind --debug.
    """
    keep_own_modules([Path.cwd()])
    wait_asleep()
    try:
        with signals_as_interrupts(), extras_named():
            app()
    except TutelageError as error:
        if _Options.debug:
            raise
        print(f"tutelage: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if _Options.debug or error.errno not in DISK_PROBLEMS:
            raise
        print(
            f"tutelage: {error.filename or 'the store'}: {error.strerror}; what is finished is "
            "kept: mend it, run again",
            file=sys.stderr,
        )
        sys.exit(2)
