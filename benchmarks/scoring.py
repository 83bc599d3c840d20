"""Scoring answers: this engine against the plain way, on the same rows, in turns.

The plain way is what the published program does: one row per forward pass, a log-softmax over all positions
and the whole vocabulary, and the full cosine matrix between positions; only SCAS comes out. This engine
returns every statistic.

    python -m benchmarks.scoring [--quick] [--device cuda] [--dtype bfloat16]
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measurement import (
    emit,
    finish,
    in_fresh_process,
    matmul_flops,
    peak_memory,
    reset_peak_memory,
    spread,
    timed,
)
from benchmarks.scoring_cases import CASES, GPU_CASES, MEMORY, Case, build, necessary_flop

SHARED = Path(__file__).resolve().parents[2] / "shared"


def score_plainly(model: Any, rows: Sequence[Any], scas_lambda: float = 0.5) -> list[float]:
    """SCAS one row at a time, with everything in memory at once."""
    import torch

    seen: list[Any] = []
    handle = model.model.layers[-1].mlp.up_proj.register_forward_hook(
        lambda _m, _i, output: seen.append(output[0].float())
    )
    scores = []
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row.ids], device=model.device)
            log_p = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0].float(), -1)
            loss = torch.zeros(len(row.ids), device=model.device)
            loss[1:] = -log_p[:-1].gather(1, ids[0, 1:, None]).squeeze(1)
            unit = torch.nn.functional.normalize(seen.pop(), dim=-1)
            cosine = unit @ unit.T
            a, q = slice(row.prompt_length, row.answer_end), slice(0, row.prompt_length)
            d_a, d_q = loss[a].mean(), loss[1 : row.prompt_length].sum() / row.prompt_length
            scores.append(
                float(
                    (1 - scas_lambda) * d_a**2 * cosine[a, a].mean()
                    + scas_lambda * d_a * d_q * cosine[a, q].mean()
                )
            )
    handle.remove()
    return scores


def measure(name: str, engine: str, dtype: str, device: str) -> None:
    """One side of one turn, in this process: rate, arithmetic, peak memory, and the scores themselves."""
    from dataclasses import asdict

    import pandas as pd

    from selection.costs import CostSettings, scas
    from selection.scoring import Scorer

    case = (CASES | GPU_CASES | {"memory": MEMORY})[name]
    model, rows = build(case, dtype, device)
    scorer = Scorer(model, frozenset()) if engine == "ours" else None

    def work(some: Sequence[Any]) -> Any:
        return scorer.score(some) if scorer is not None else score_plainly(model, some)

    work(
        [type(rows[0])(r.ids[: r.prompt_length + 8], r.prompt_length, r.prompt_length + 8) for r in rows[:2]]
    )
    before = matmul_flops(dtype, device)
    held = reset_peak_memory(device)
    found: list[Any] = []
    seconds = timed(lambda: found.extend(work(rows)), device)
    peak = peak_memory(device) - held
    ceiling = (before + matmul_flops(dtype, device)) / 2
    scores = (
        scas(pd.DataFrame([asdict(f) for f in found]), CostSettings()).tolist()
        if scorer is not None
        else found
    )
    flop = necessary_flop(case, rows)
    emit(
        {
            "seconds": seconds,
            "answers": len(rows),
            "flop": flop,
            "matmul_flops": ceiling,
            "peak_bytes": peak,
            "scores": scores,
        }
    )


def compare(name: str, case: Case, turns: int, dtype: str, device: str) -> dict[str, Any]:
    """Both engines in turns; ratios are taken within a turn."""
    ratios, ceilings, rates, worst = [], [], [], 0.0
    for _ in range(turns):
        plain, ours = (
            in_fresh_process(__spec__.name, "--measure", name, e, dtype, device) for e in ("plain", "ours")
        )
        ratios.append(plain["seconds"] / ours["seconds"])
        ceilings.append(ours["flop"] / ours["seconds"] / ours["matmul_flops"])
        rates.append(ours["answers"] / ours["seconds"])
        scale = max(abs(s) for s in plain["scores"])
        worst = max(
            worst, max(abs(a - b) for a, b in zip(ours["scores"], plain["scores"], strict=True)) / scale
        )
    wanted = f", wanted {case.wanted}" if case.wanted and dtype == "float32" else ""
    print(
        f"{case.about}, {dtype} on {device}: {spread(ratios)} times the plain way{wanted}; "
        f"{statistics.median(rates):,.1f} answers/s;"
    )
    print(
        f"    {spread(ceilings)} of the matrix-product rate; scores differ by at most {worst:.1e} "
        "of the largest",
        flush=True,
    )
    figures = {
        "speedup": statistics.median(ratios),
        "speedups": ratios,
        "wanted": case.wanted,
        "of_matmul_rate": statistics.median(ceilings),
    }
    return figures | {"answers_per_s": statistics.median(rates), "largest_difference": worst}


def compare_memory() -> dict[str, Any]:
    plain, ours = (
        in_fresh_process(__spec__.name, "--measure", "memory", e, "float32", "cpu") for e in ("plain", "ours")
    )
    share = ours["peak_bytes"] / plain["peak_bytes"]
    mib = [r["peak_bytes"] / 2**20 for r in (ours, plain)]
    print(
        f"{MEMORY.about}: {mib[0]:,.0f} MiB over the weights, the plain way {mib[1]:,.0f} MiB: "
        f"{share:.1%}, wanted at most 15 %",
        flush=True,
    )
    return {"ours_mib": mib[0], "plain_mib": mib[1], "share": share, "wanted": 0.15}


def compare_bfloat16(turns: int) -> dict[str, Any]:
    """bf16 against float32 in this engine: rate on the 135M shape, and how often the cheapest answer is
    another one on real answers.
    """
    ratios = []
    for _ in range(turns):
        full, half = (
            in_fresh_process(__spec__.name, "--measure", "135M short prompt", "ours", d, "cpu")
            for d in ("float32", "bfloat16")
        )
        ratios.append(full["seconds"] / half["seconds"])
    print(f"135M shape in bfloat16: {spread(ratios)} times the rate of float32", flush=True)
    figures: dict[str, Any] = {
        "speedup": statistics.median(ratios),
        "of_matmul_rate": half["flop"] / half["seconds"] / half["matmul_flops"],
    }
    if (SHARED / "golden" / "scas").is_dir():
        figures |= in_fresh_process(__spec__.name, "--choices")
        print(
            f"    another answer is the cheapest in {figures['changed']} of "
            f"{figures['questions']} questions of four real answers each",
            flush=True,
        )
    return figures


def measure_choices() -> None:
    """Which answer is cheapest for each golden question, in float32 and in bfloat16."""
    import json

    import pandas as pd

    from cluster.models.loading import ModelSource, load_model, load_tokenizer
    from cluster.models.rendering import Renderer
    from selection.costs import CostSettings, scas
    from selection.scoring import Scorer

    golden = SHARED / "golden" / "scas"
    renderer = Renderer(load_tokenizer(ModelSource(str(golden / "student"))))
    rows = [
        json.loads(line)
        for file in sorted((golden / "candidates").glob("*.jsonl"))
        for line in file.read_text().splitlines()
    ]
    rendered = [renderer.conversation(r["instruction"], r["teacher_output"]) for r in rows]
    cheapest, losses = {}, {}
    for dtype in ("float32", "bfloat16"):
        found = Scorer(load_model(ModelSource(str(golden / "student"), dtype)), renderer.special_ids).score(
            rendered
        )  # type: ignore[arg-type]
        table = pd.DataFrame([vars(f) for f in found]).assign(question=[r["id"] for r in rows])
        cost = scas(table, CostSettings())
        cheapest[dtype], losses[dtype] = (
            cost.groupby(table["question"]).idxmin(),
            table["answer_loss"] / table["n_answer"],
        )
    changed = int((cheapest["float32"] != cheapest["bfloat16"]).sum())
    worst = float(((losses["bfloat16"] - losses["float32"]).abs() / losses["float32"]).max())
    emit({"changed": changed, "questions": len(cheapest["float32"]), "largest_loss_difference": worst})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="one turn per case and no half precision")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--choices", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(*options.measure)
    if options.choices:
        return measure_choices()
    turns = 1 if options.quick else 3
    cases = CASES if options.device == "cpu" else GPU_CASES
    figures: dict[str, Any] = {
        name: compare(name, case, turns, options.dtype, options.device) for name, case in cases.items()
    }
    if options.device == "cpu" and options.dtype == "float32":
        figures["memory"] = compare_memory()
        if not options.quick:
            figures["bfloat16"] = compare_bfloat16(turns)
    return finish("scoring", figures)


if __name__ == "__main__":
    main()
