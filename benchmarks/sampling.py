"""Sampling in this process against transformers: `generate` on left-padded batches, and `generate_batch`
(continuous batching).

Greedy decoding of the miniature teachers on their questions, every side in a process of its own, in turns.
The texts must be the same. `generate` is tried at several batch sizes, in the order of the file and sorted by
length; its best one counts.

    python -m benchmarks.sampling [--quick] [--store store]
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measurement import emit, finish, in_fresh_process, spread, timed

SIDES = (
    "ours",
    "generate 32",
    "generate 128",
    "generate 128 sorted",
    "generate 512 sorted",
    "generate_batch",
)
QUICK_SIDES = ("ours", "generate 128", "generate 128 sorted", "generate 512 sorted")
MAX_NEW_TOKENS = 160


def miniature_world(store: str) -> Path:
    """The directory of the miniature world in a store; built there if it is not yet."""
    built = subprocess.run(
        [sys.executable, "-m", "jobs", "miniature", "--out", store],
        capture_output=True,
        text=True,
        check=True,
    )
    line = next(line for line in built.stdout.splitlines() if line.startswith("questions"))
    return Path(line.split()[1]).parent


def measure(model_path: str, questions: str, count: str, side: str, device: str, repeats: str) -> None:
    """One side of one turn: seconds, tokens, and the texts' ids. The median of some repeats counts, after one
    that is not timed.
    """
    from cluster.models.loading import ModelSource, load_model, load_tokenizer
    from cluster.models.rendering import Renderer

    source = ModelSource(model_path)
    renderer, model = Renderer(load_tokenizer(source)), load_model(source, device)
    rows = [
        json.loads(line) for line in Path(questions).read_text(encoding="utf-8").splitlines()[: int(count)]
    ]
    prompts = [list(renderer.prompt(row["question"])) for row in rows]
    stop, pad = renderer.stop_ids, renderer.tokenizer.pad_token_id
    work: Callable[[], list[list[int]]]
    if side == "ours":
        work = partial(_ours, model, prompts, stop)
    elif side == "generate_batch":
        work = partial(_generate_batch, model, prompts, stop, pad)
    else:
        work = partial(_generate, model, prompts, int(side.split()[1]), side.endswith("sorted"), stop, pad)
    found = work()
    seconds = statistics.median(timed(work, device) for _ in range(int(repeats)))
    emit({"seconds": seconds, "tokens": sum(len(f) for f in found), "answers": len(found), "texts": found})


def _ours(model: Any, prompts: Sequence[list[int]], stop: frozenset[int]) -> list[list[int]]:
    """This project's own sampling."""
    from cluster.models.sampling import Completion, Sampling, sample

    found = sample(model, prompts, Sampling(MAX_NEW_TOKENS, stop))
    return [list(c.ids) for c in found if isinstance(c, Completion)]


def _generate_batch(
    model: Any, prompts: Sequence[list[int]], stop: frozenset[int], pad: int
) -> list[list[int]]:
    """`generate_batch`: continuous batching."""
    from transformers import GenerationConfig
    from transformers.generation import ContinuousBatchingConfig

    config = GenerationConfig(
        max_new_tokens=MAX_NEW_TOKENS, do_sample=False, eos_token_id=sorted(stop), pad_token_id=pad
    )
    cache = ContinuousBatchingConfig(max_memory_percent=0.3)
    found = model.generate_batch(
        [list(p) for p in prompts],
        generation_config=config,
        continuous_batching_config=cache,
        progress_bar=False,
    )
    by_number = [found[key] for key in sorted(found, key=lambda k: int(k.rsplit("_", 1)[-1]))]
    return [_before_stop(r.generated_tokens, stop) for r in by_number]


def _generate(
    model: Any, prompts: Sequence[list[int]], batch: int, by_length: bool, stop: frozenset[int], pad: int
) -> list[list[int]]:
    """`generate` on left-padded batches."""
    import torch

    order = (
        sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        if by_length
        else list(range(len(prompts)))
    )
    found: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        width = max(len(prompts[i]) for i in rows)
        ids = torch.tensor(
            [[pad] * (width - len(prompts[i])) + prompts[i] for i in rows], device=model.device
        )
        mask = torch.tensor(
            [[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in rows], device=model.device
        )
        with torch.inference_mode():
            options = {
                "max_new_tokens": MAX_NEW_TOKENS,
                "do_sample": False,
                "eos_token_id": sorted(stop),
                "pad_token_id": pad,
            }
            out = model.generate(input_ids=ids, attention_mask=mask, **options)
        for i, row in zip(rows, out[:, width:].tolist(), strict=True):
            found[i] = _before_stop(row, stop)
    return found


def _before_stop(ids: Sequence[int], stop: frozenset[int]) -> list[int]:
    return list(ids[: next((k for k, i in enumerate(ids) if i in stop), len(ids))])


def compare(
    model: Path,
    questions: Path,
    count: int,
    turns: int,
    device: str,
    sides: Sequence[str],
    repeats: int = 3,
) -> dict[str, Any]:
    """All sides in turns for one teacher; each ratio is against that turn's best other side."""
    ratios, rates, differing = [], {side: list[float]() for side in sides}, dict[str, int]()
    for _ in range(turns):
        turn = {
            s: in_fresh_process(
                "benchmarks.sampling",
                "--measure",
                str(model),
                str(questions),
                str(count),
                s,
                device,
                str(repeats),
            )
            for s in sides
        }
        for side, got in turn.items():
            rates[side].append(got["tokens"] / got["seconds"])
            different = sum(a != b for a, b in zip(got["texts"], turn["ours"]["texts"], strict=True))
            differing[side] = max(differing.get(side, 0), different)
        ratios.append(min(t["seconds"] for s, t in turn.items() if s != "ours") / turn["ours"]["seconds"])
    middle = {side: statistics.median(r) for side, r in rates.items()}
    print(
        f"{model.parent.name}, {count} questions on {device}: {spread(ratios)} times the best "
        "other way, wanted 1.5",
        flush=True,
    )
    for side in sides:
        print(
            f"    {side:20} {middle[side]:10,.0f} tokens/s   {differing[side]} texts differ from ours",
            flush=True,
        )
    return {
        "speedup": statistics.median(ratios),
        "speedups": ratios,
        "tokens_per_s": middle,
        "differing_texts": differing,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--quick", action="store_true", help="one turn, one teacher, half of the questions, four of the sides"
    )
    parser.add_argument(
        "--store", default="store", help="where the miniature world is, or will be built (two minutes)"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--measure", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(*options.measure)
    world = miniature_world(options.store)
    teachers, turns = (("bea",), 1) if options.quick else (("ada", "bea", "eve"), 3)
    sides, count = (QUICK_SIDES, 200) if options.quick else (SIDES, 400)
    figures = {
        t: compare(world / t / "model", world / "train.jsonl", count, turns, options.device, sides)
        for t in teachers
    }
    return finish("sampling", figures)


if __name__ == "__main__":
    main()
