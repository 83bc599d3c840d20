"""Scoring answers of many turns: all turns in one pass, against each turn behind its own prompt.

A model of random weights in the shape of SmolLM2-135M reads trajectories of ten turns, each followed by a
tool's result. The plain way feeds every turn with its whole prompt, one row a forward pass. Losses must
agree. Sides run in turns, in fresh processes.

    python -m benchmarks.turns [--quick] [--device cuda] [--dtype bfloat16]

Rendering such answers, from texts to ids, against encoding every turn with all that stands before it:

    python -m benchmarks.turns --tokenizer DIRECTORY
"""

import argparse
import random
from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.measurement import emit, finish, in_fresh_process, spread, timed
from benchmarks.scoring_cases import SHAPE_135M, Case, build

TURNS, QUESTION, SAID, RESULT = 10, 120, 50, 40  # how many, and tokens of each
WORDS = ["the", "quick", "brown", "function", "returns", "42", "print", "error", "path/to/x.py", "+", "="]


def trajectories(count: int, vocabulary: int) -> list[Any]:
    """Rows of random tokens with the spans of the assistant's turns."""
    import torch

    from cluster.models.rendering import Rendered

    rng = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(count):
        spans = [(at, at + SAID) for at in range(QUESTION, QUESTION + TURNS * (SAID + RESULT), SAID + RESULT)]
        ids = torch.randint(0, vocabulary, (spans[-1][1],), generator=rng).tolist()
        rows.append(Rendered(tuple(ids), QUESTION, len(ids), tuple(spans)))
    return rows


def score_each_turn(model: Any, rows: Sequence[Any]) -> list[float]:
    """The summed loss of every trajectory, one forward pass for each of its turns."""
    import torch

    found = []
    with torch.inference_mode():
        for row in rows:
            total = 0.0
            for start, end in row.spans:
                ids = torch.tensor([row.ids[:end]], device=model.device)
                log_p = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0].float(), -1)
                own = log_p[start - 1 : end - 1].gather(1, ids[0, start:, None])
                total -= float(own.double().sum())
            found.append(total)
    return found


def measure_rendering(directory: str) -> dict[str, float]:
    """How much faster trajectories of 10, 30 and 60 turns are rendered. The ids must be the same."""
    from cluster.models.loading import ModelSource, load_tokenizer
    from cluster.models.messages import Message
    from cluster.models.rendering import Renderer

    tokenizer, rng = load_tokenizer(ModelSource(directory)), random.Random(0)
    fast, slow = Renderer(tokenizer), Renderer(tokenizer)
    slow.__dict__["seams"] = {}
    found = {}
    for count in (10, 30, 60):
        turns = [
            Message("user" if k % 2 else "assistant", " ".join(rng.choices(WORDS, k=300 if k % 2 else 100)))
            for k in range(2 * count - 1)
        ]
        both = [fast.trajectory("Do it.", turns).ids, slow.trajectory("Do it.", turns).ids]
        assert both[0] == both[1]
        seconds = [timed(partial(r.trajectory, "Do it.", turns), "cpu") for r in (slow, fast)]
        found[f"{count} turns, {len(both[0])} tokens"] = round(seconds[0] / seconds[1], 1)
    return found


def measure(side: str, count: int, dtype: str, device: str) -> None:
    """One side of one turn, in this process."""
    from cluster.models.rendering import Rendered
    from selection.scoring import Scorer, Statistics

    model, _ = build(Case("", SHAPE_135M, 8, 8, 1, 1), dtype, device)
    rows = trajectories(count, model.config.vocab_size)
    scorer = Scorer(model, frozenset())
    alone = [Rendered(row.ids[:end], start, end) for row in rows for start, end in row.spans]

    def losses(scored: Sequence[Any]) -> list[float]:
        return [one.answer_loss for one in scored if isinstance(one, Statistics)]

    def work() -> list[float]:
        if side == "plain":
            return score_each_turn(model, rows)
        if side == "all":
            return losses(scorer.score(rows))
        found = losses(scorer.score(alone))
        return [sum(found[k : k + TURNS]) for k in range(0, len(found), TURNS)]

    scorer.score(rows[:1])
    found: list[float] = []
    seconds = timed(lambda: found.extend(work()), device)
    emit({"seconds": seconds, "losses": found})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="one turn of fewer trajectories")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--tokenizer", help="measure rendering with this model's tokenizer instead")
    o = parser.parse_args()
    if o.tokenizer:
        return finish("rendering of turns", measure_rendering(o.tokenizer))
    if o.measure:
        return measure(o.measure[0], int(o.measure[1]), o.dtype, o.device)
    count, turns = (4, 1) if o.quick else (12, 3)
    ratios: dict[str, list[float]] = {"plain": [], "each": []}
    worst = 0.0
    for _ in range(turns):
        rest = "--dtype", o.dtype, "--device", o.device
        got = {
            side: in_fresh_process(__spec__.name, "--measure", side, str(count), *rest)
            for side in ("plain", "each", "all")
        }
        for side, own in ratios.items():
            own.append(got[side]["seconds"] / got["all"]["seconds"])
            pairs = zip(got[side]["losses"], got["all"]["losses"], strict=True)
            worst = max(worst, *(abs(a - b) / abs(a) for a, b in pairs))
    print(
        f"{TURNS} turns, {o.dtype} on {o.device}: {spread(ratios['plain'])} times the plain way, wanted 3; "
        f"{spread(ratios['each'])} times each turn alone in this engine; losses differ by {worst:.1e}",
        flush=True,
    )
    return finish("turns", {"speedups": ratios, "largest_relative_difference": worst})


if __name__ == "__main__":
    main()
