"""How often 95 % intervals of a difference hold the truth, and with them p-values of 0.05 and above: by
number of seeds, of paths, and by how much seeds truly differ. Data as trainings give them: questions of
unequal difficulty, some of which suit one arm, seeds that shift all questions, right or wrong by chance.

python -m benchmarks.intervals --data-sets 2000
python -m benchmarks.intervals --data-sets 2000 --naming
"""

import argparse
import json
from itertools import product

import numpy as np

from training.comparison import compare
from training.evaluation import louder, pool_seeds

QUESTIONS = 300
DIFFICULTY, INTERACTION = 1.5, 0.8  # standard deviations in logits: of questions, of an arm's liking for each
SLOPE = 6.0  # logits that move the mean accuracy by 1, near the middle, at this spread of questions


def draw_paths(rng: np.random.Generator, paths: int, seeds: int, sd_points: float | np.ndarray) -> np.ndarray:
    """Right and wrong answers [paths, S, Q], all paths equally good over other questions and seeds.

    Args:
        sd_points: what the difference of two arms differs by from seed to seed, in points; of all paths, or
            of each.
    """
    difficulty_Q = rng.normal(0, DIFFICULTY, QUESTIONS)
    likes_P1Q = rng.normal(0, INTERACTION, (paths, 1, QUESTIONS))
    of_one = SLOPE * np.asarray(sd_points) / 100 / np.sqrt(2)  # two arms make the difference
    moved_PS1 = rng.normal(0, np.broadcast_to(of_one, paths)[:, None, None], (paths, seeds, 1))
    logits = difficulty_Q + likes_P1Q + moved_PS1
    return (rng.logistic(size=logits.shape) < logits).astype(float)


def coverage(seeds: int, paths: int, sd_points: float, data_sets: int) -> float:
    """How many of 100 intervals of the first two paths' difference hold 0, the truth."""
    rng = np.random.default_rng([seeds, paths, round(10 * sd_points)])
    held = 0
    for _ in range(data_sets):
        tables = draw_paths(rng, paths, seeds, sd_points)
        found = compare(tables[0], tables[1], "a", "b", pool=pool_seeds(tables)).difference
        held += found.low <= 0 <= found.high
    return 100 * held / data_sets


def naming(seeds: int, loud: int, sd_points: float, data_sets: int, paths: int = 12) -> tuple[float, float]:
    """Of 100 data sets in how many a path is named whose seeds differ as all others' do (1 point), and of 100
    paths with louder seeds how many are named.
    """
    rng = np.random.default_rng([7, seeds, loud, round(10 * sd_points)])
    wrong, right = 0, 0
    for _ in range(data_sets):
        tables = draw_paths(rng, paths, seeds, np.where(np.arange(paths) < loud, sd_points, 1.0))
        pool = pool_seeds(tables)
        named = [louder(table, pool, paths) is not None for table in tables]
        wrong, right = wrong + any(named[loud:]), right + sum(named[:loud])
    return 100 * wrong / data_sets, 100 * right / (data_sets * loud) if loud else float("nan")


def print_naming(data_sets: int) -> None:
    print("seeds  louder paths of 12  their seed SD, points  others named, %  they are named, %")
    for seeds, (loud, sd) in product((2, 3, 5), ((0, 1.0), (1, 4.0), (1, 6.0), (1, 10.0), (2, 6.0))):
        wrong, right = naming(seeds, loud, sd, data_sets)
        print(f"{seeds:5}  {loud:18}  {sd:21.0f}  {wrong:15.1f}  {right:17.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-sets", type=int, default=2000)
    parser.add_argument("--naming", action="store_true", help="how often paths with louder seeds are named")
    given = parser.parse_args()
    if given.naming:
        print_naming(given.data_sets)
        return
    rows = []
    print("seeds  paths  seed SD, points  coverage, %")
    for seeds, paths, sd in product((2, 3, 5), (12, 48), (0.0, 1.0, 2.0, 3.0, 4.0)):
        found = coverage(seeds, paths, sd, given.data_sets)
        rows.append({"seeds": seeds, "paths": paths, "seed_sd_points": sd, "coverage": found})
        print(f"{seeds:5}  {paths:5}  {sd:15.0f}  {found:11.1f}", flush=True)
    covered = [row["coverage"] for row in rows]
    told = {"benchmark": "intervals", "data_sets": given.data_sets, "cells": rows}
    print(json.dumps(told | {"lowest": min(covered), "highest": max(covered)}))


if __name__ == "__main__":
    main()
