r"""How well do orders of teachers, known before a training, agree with what each teacher gave a student?

Reads the values by question of a study whose arms are `only TEACHER` (`each_teacher`), and the statistics
that `tutelage rank` wrote for the same teachers. Prints Kendall's tau-b of each cost with the mean value of
each teacher's arm. Intervals draw the ranked questions, the held-out questions and the training seeds again.

    tutelage rank --student STUDENT --answers traces/ --turns all --out ranked
    python -m benchmarks.truth --values runs/rank_traces/rows-questions.parquet \
        --scores ranked/statistics.parquet [--out truth.csv]
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measurement import emit
from jobs.results.ranking import RankSettings, matched_of
from selection.agreement import agreement_table

ONLY = "only "
DRAWS, SEED = 2000, 0


def drawn_means(values: pd.DataFrame, teachers: list[str], draws: int, seed: int) -> np.ndarray:
    """The mean value of each teacher's arm with held-out questions and training seeds drawn again [B, T].

    Args:
        values: `arm`, `seed`, `question`, `value`.
    """
    tables = [
        values[values["arm"] == ONLY + t].pivot(index="seed", columns="question", values="value")
        for t in teachers
    ]
    seeds, questions = tables[0].index, tables[0].columns
    each = np.stack([table.loc[seeds, questions].to_numpy(float) for table in tables])  # [T, S, Q]
    rng, found = np.random.default_rng(seed), np.empty((draws, len(teachers)))
    for b in range(draws):
        s, q = rng.integers(len(seeds), size=len(seeds)), rng.integers(len(questions), size=len(questions))
        found[b] = np.nanmean(each[:, s][:, :, q], axis=(1, 2))  # some questions could not be judged
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--values", required=True, help="PART-questions.parquet of a study")
    parser.add_argument("--scores", required=True, help="statistics.parquet of `tutelage rank`")
    parser.add_argument("--out", help="a CSV file for the table")
    options = parser.parse_args()
    values, scores = pd.read_parquet(options.values), pd.read_parquet(options.scores)
    values = values[values["arm"].str.startswith(ONLY)]
    scores = scores.astype({"teacher": str, "question_id": str})
    matched, _ = matched_of(scores, RankSettings())
    truth = {t: float(values.loc[values["arm"] == ONLY + t, "value"].mean()) for t in matched.teachers}
    drawn = drawn_means(values, list(matched.teachers), DRAWS, SEED)
    table = agreement_table(matched, DRAWS, SEED, list(matched.teachers), truth, drawn)
    tokens = dict(zip(matched.teachers, matched.tokens.mean(axis=1).round(1).tolist(), strict=True))
    emit({"questions": len(matched.questions), "gave": truth, "tokens": tokens})
    print(table[["cost", "tau", "low", "high"]].round(2).to_string(index=False))
    if options.out:
        table.to_csv(Path(options.out), index=False)


if __name__ == "__main__":
    main()
