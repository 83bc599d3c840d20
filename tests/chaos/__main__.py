"""The chaos suite, `make chaos`: strike a run at random points, start it again, compare it with an
undisturbed one.

One reference run first. Every fault (`faults`) then gets a copy of its store with the later stages taken
away, is struck at a point that its seed chooses, and is started again until it ends. It has survived if
answers, verdicts, costs and choices are the reference's byte for byte, the trained weights are its within a
tolerance, the ledger is the same, no half-written file lies around, no lock is held and no process of it is
alive (`compare`). The table says what was done again.
"""

import argparse
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.arena import (
    TRIES,
    Arena,
    Failed,
    Fight,
    Missed,
    Skipped,
    arena,
    arena_of_calls,
    arena_of_rollouts,
    arena_of_writing,
)
from tests.chaos.compare import check
from tests.chaos.faults import CALL_FAULTS, FAULTS, ROLLOUT_FAULTS, WRITING_FAULTS

AGENTS_NOTICE_S = 180.0  # Ray's agents ask their dead head for a minute or two before they give up


def wait_for_processes(fights: list[tuple[Fight, list[str]]]) -> None:
    """Every process must have ended by itself: workers at once, Ray's agents when they notice that their
    cluster is gone.
    """
    deadline = time.monotonic() + AGENTS_NOTICE_S
    while any(fight.processes() for fight, _ in fights) and time.monotonic() < deadline:
        time.sleep(0.5)
    for fight, row in fights:
        alive = fight.processes()
        if alive:
            names = [
                Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:30].strip()
                for pid in alive
            ]
            row[2] = f"NO: still alive: {', '.join(names)}"
            for pid in alive:
                os.kill(pid, signal.SIGKILL)


def strike(found: Arena, name: str) -> tuple[Fight, list[str]]:
    """Cause one fault and compare; returns its row of the table.

    A run that ended before its moment was seen is set back and struck again.
    """
    began = time.monotonic()
    if name in ROLLOUT_FAULTS:
        fault, fight = ROLLOUT_FAULTS[name], Fight(arena_of_rollouts(found), name, ())
    elif name in WRITING_FAULTS:
        fault, fight = WRITING_FAULTS[name], Fight(arena_of_writing(found), name, ())
    elif name in CALL_FAULTS:
        fault, fight = CALL_FAULTS[name], Fight(arena_of_calls(found), name, ())
    else:
        fault, keep = FAULTS[name]
        fight = Fight(found, name, keep)
    again = ""
    for left in reversed(range(TRIES)):
        try:
            fault(fight)
            again = str(check(fight))
            outcome = "yes" + "".join(f"; {n}" for n in dict.fromkeys(fight.notes))
            break
        except Missed as error:
            outcome = f"NO: {error}, {TRIES} times"
            if left:
                fight.begin_again()
        except (Failed, OSError, subprocess.SubprocessError) as error:
            outcome = f"NO: {error}"
            break
        except Skipped as reason:
            outcome = f"skipped: {reason}"
            break
    return fight, [name, fight.struck, outcome, again, f"{time.monotonic() - began:.0f}"]


def main() -> None:
    """Run the faults and print the table; exits with 1 if one was not survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seed", type=int, default=None, help="chooses where each fault strikes; random if not given"
    )
    parser.add_argument("--only", default="", help="only faults whose name holds this")
    parser.add_argument(
        "--minutes",
        type=float,
        default=None,
        help="start no further fault after this; the seed chooses the order",
    )
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else secrets.randbelow(10**6)
    print(f"seed {seed}: python -m tests.chaos --seed {seed}", flush=True)
    table = Table(
        "fault",
        "where",
        "survived",
        "finished parts kept",
        "seconds",
        title=f"chaos, seed {seed}",
        title_justify="left",
    )
    fights: list[tuple[Fight, list[str]]] = []
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    with arena(folder, seed) as found:
        order = [
            name for name in (*FAULTS, *ROLLOUT_FAULTS, *WRITING_FAULTS, *CALL_FAULTS) if given.only in name
        ]
        if given.minutes is not None:
            random.Random(seed).shuffle(order)
        started = time.monotonic()
        for name in order:
            if given.minutes is not None and time.monotonic() - started > 60 * given.minutes:
                break
            fight, row = strike(found, name)
            fights.append((fight, row))
            print(f"{name}: {row[2]} ({row[1]})", flush=True)
        wait_for_processes(fights)
    for _, row in fights:
        table.add_row(*row)
    Console(width=170).print(table)
    failed = sum(row[2].startswith("NO") for _, row in fights)
    skipped = sum(row[2].startswith("skipped") for _, row in fights)
    print(
        f"{len(fights) - failed - skipped} passed, {failed} failed"
        + (f", {skipped} skipped" if skipped else "")
    )
    if len(fights) < len(order):
        print(
            f"{len(order) - len(fights)} of {len(order)} faults were not reached in {given.minutes:g} minutes"
        )
    if failed:
        print(f"the stores and logs are in {folder}")
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
