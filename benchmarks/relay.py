"""Decoding with calls against the student alone: how much of the possible rate is reached.

A student that has its teacher write a share of its tokens at random places. The possible rate is the
student's own sampling rate times 1 / (1 + r c_T / c_S): r tokens that the teacher reads for each written
one, c the seconds of a token of either model when it answers alone. The same texts, the same batch; sides
in turns. Beside it transformers' assisted generation with the same two models: passes of the teacher per
token and the rate.

    python -m benchmarks.relay [--quick] [--store store]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measurement import finish, spread
from benchmarks.sampling import miniature_world

MAX_NEW_TOKENS = 100
SHARES = (0.05, 0.1, 0.2, 0.4)
WANTED = 0.8


def seconds_of(work: Callable[[], Any]) -> tuple[float, Any]:
    """How long a call takes, and what it gives."""
    began = time.monotonic()
    found = work()
    return time.monotonic() - began, found


def measure(student: Path, teacher: Path, questions: Path, rows: int, turns: int) -> dict[str, Any]:
    """All shares of calls, in turns with the student and the teacher alone."""
    from cluster.models.asked import why_not_cached
    from cluster.models.loading import ModelSource, load_model, load_tokenizer
    from cluster.models.proof import prove
    from cluster.models.relay import Calls, Side, relay
    from cluster.models.rendering import Renderer
    from cluster.models.sampling import Sampling, sample

    models = [load_model(ModelSource(str(path))) for path in (student, teacher)]
    heads = [prove(model, ("projection",)).head for model in models]
    renderer = Renderer(load_tokenizer(ModelSource(str(student))))
    lines = questions.read_text(encoding="utf-8").splitlines()[:rows]
    prompts = [list(renderer.prompt(json.loads(line)["question"])) for line in lines]
    reason = why_not_cached(heads[1])
    print(
        "the teacher reads with one cache" if reason is None else f"the teacher reads again: {reason}",
        flush=True,
    )
    # no token ends an answer, so that all sides write equally many
    settings = Sampling(MAX_NEW_TOKENS, frozenset(), 1.0)
    seeds = list(range(rows))
    own, other = (Side(head, prompts, seeds) for head in heads)
    found: dict[str, list[float]] = {}
    for turn in range(turns + 1):  # the first turn warms up
        costs = []
        for model in models:
            seconds, _ = seconds_of(partial(sample, model, prompts, settings, seeds))
            costs.append(seconds / (rows * MAX_NEW_TOKENS))
        for share in SHARES:
            calls = Calls("random", threshold=share)
            seconds, answers = seconds_of(partial(relay, own, other, settings, calls))
            written = sum(len(a.by_teacher) for a in answers)
            read = sum(a.processed for a in answers) / written
            possible = costs[0] * (1 + read * costs[1] / costs[0])
            if turn:
                found.setdefault(f"of possible at {share:g}", []).append(possible * written / seconds)
                found.setdefault(f"of the student alone at {share:g}", []).append(
                    costs[0] * written / seconds
                )
                found.setdefault(f"teacher tokens at {share:g}", []).append(read)
    for name, values in found.items():
        print(f"    {name:35} {spread(values)}", flush=True)
    return {name: statistics.median(values) for name, values in found.items()}


def assisted(student: Path, teacher: Path, questions: Path, rows: int) -> dict[str, float]:
    """transformers' assisted generation, one answer at a time: passes of the teacher per token, and how
    many times as fast as the teacher alone.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from cluster.models.loading import ModelSource, load_tokenizer
    from cluster.models.rendering import Renderer

    renderer = Renderer(load_tokenizer(ModelSource(str(student))))
    draft, target = (AutoModelForCausalLM.from_pretrained(path).eval() for path in (student, teacher))
    lines = questions.read_text(encoding="utf-8").splitlines()[:rows]
    prompts = [torch.tensor([list(renderer.prompt(json.loads(line)["question"]))]) for line in lines]
    passes = 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    handle = target.register_forward_hook(count)
    told: dict[str, float] = {}
    times = {}
    for name, helper in (("alone", None), ("assisted", draft)):
        passes, tokens, began = 0, 0, time.monotonic()
        for ids in prompts:
            with torch.inference_mode():
                out = target.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    assistant_model=helper,
                    do_sample=False,
                    max_new_tokens=MAX_NEW_TOKENS,
                    eos_token_id=sorted(renderer.stop_ids),
                    pad_token_id=renderer.tokenizer.pad_token_id,
                )
            tokens += out.shape[1] - ids.shape[1]
        times[name] = (time.monotonic() - began) / tokens
        told[f"passes per token, {name}"] = passes / tokens
    handle.remove()
    told["assisted over alone"] = times["alone"] / times["assisted"]
    for name, value in told.items():
        print(f"    {name:35} {value:.3f}", flush=True)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="one turn")
    parser.add_argument("--store", default="store", help="where the miniature world is, or will be built")
    options = parser.parse_args()
    world = miniature_world(options.store)
    given = world / "sue" / "model", world / "ada" / "model", world / "train.jsonl"
    figures = measure(*given, 64, 1 if options.quick else 3)
    figures |= assisted(*given, 8 if options.quick else 32)
    least = min(v for name, v in figures.items() if name.startswith("of possible"))
    print(f"at least {least:.2f} of the possible rate, wanted {WANTED}", flush=True)
    return finish("relay", figures)


if __name__ == "__main__":
    main()
