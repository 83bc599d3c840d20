"""Whether a struck run ended where the undisturbed one did, byte for byte where that is promised, and left
nothing behind.
"""

import json
from pathlib import Path

import pandas as pd

from cluster.locks import is_held
from tests.chaos.arena import EXACT, Failed, Fight

TOLERANCE = 1e-6  # weights of a resumed training against an undisturbed one


def check(fight: Fight) -> int:
    """Compare with the reference; returns how many parts were finished when the fault struck, none of which
    was made again.

    Raises:
        Failed: what differs, or what was left lying around.
    """
    want, have = digests(fight, fight.arena.reference), digests(fight, fight.store)
    if want != have:
        differing = sorted(k for k in want.keys() | have.keys() if want.get(k) != have.get(k))
        raise Failed(f"not the reference's bytes: {', '.join(differing[:4])}")
    compare_weights(fight)
    ledgers = [
        pd.read_parquet(folder / "ledger.parquet")
        for folder in (fight.arena.root / "reference" / "runs" / "small", run_of(fight))
    ]
    if not ledgers[0].equals(ledgers[1]):
        raise Failed("the ledger differs from the reference's")
    strays = [
        p
        for pattern in ("**/.*.tmp", "**/*.partial", "checkpoints/*", "train/*/step-*")
        for p in fight.store.glob(pattern)
    ]
    strays += [lock for lock in fight.store.glob("locks/*") if is_held(lock)]
    stages = ("select", "examples", "train", "evaluate")
    strays += [
        p for stage in stages for p in fight.store.glob(f"{stage}/*") if not (p / "manifest.json").is_file()
    ]
    strays += [p for p in fight.store.glob("views/*/*") if not (p / "view.json").is_file()]
    if strays:
        raise Failed(f"left behind: {', '.join(str(p.relative_to(fight.store)) for p in strays[:4])}")
    again = [p for p, inode in fight.before.items() if not p.is_file() or p.stat().st_ino != inode]
    again = [p for p in again if p.parent.parent.name not in ("select", "examples")]  # made in no time
    if again:
        raise Failed(
            f"finished parts were made again: {', '.join(str(p.relative_to(fight.store)) for p in again[:4])}"
        )
    return len(fight.before)


def run_of(fight: Fight) -> Path:
    return fight.folder / "runs" / "small"


def digests(fight: Fight, store: Path) -> dict[str, str]:
    """sha256 of every part that must be the same bytes, as manifests and views say. Verdicts on a student's
    answers are asked for by its evaluation: nobody looks at them where that was there.
    """
    found = {}
    for kind in EXACT:
        if kind == "verdicts on" and "evaluate" in fight.keep:
            continue
        for place in fight.arena.places(kind):
            for end in ("manifest.json", "view.json"):
                if (store / place / end).is_file():
                    parts = json.loads((store / place / end).read_text())["parts"]
                    found.update({f"{place}/{name}": part["sha256"] for name, part in parts.items()})
    return found


def compare_weights(fight: Fight) -> None:
    from safetensors.numpy import load_file

    for want in fight.arena.reference.glob("train/*/model/model.safetensors"):
        have = fight.store / want.relative_to(fight.arena.reference)
        if not have.is_file():
            raise Failed(f"no trained model {have.parent.parent.name}")
        one, two = load_file(want), load_file(have)
        worst = max(float(abs(one[k] - two[k]).max()) for k in one)
        if worst > TOLERANCE:
            raise Failed(f"weights differ by {worst:.1e}")
        fight.notes.append(f"weights within {worst:.0e}")
