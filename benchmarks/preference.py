"""Learning from pairs against TRL's DPOTrainer: the same model, pairs, batches, optimizer and precision, one
worker with all cores.

A 10M-parameter model of random weights learns to prefer a question's own GSM8K answer to another question's.
Both sides have computed the log-probabilities of the model as it was before the first step that is timed. TRL
is tried padded and padding-free, with the batch whole and in quarters; its best one counts. Losses must agree
step by step. Start-up and the first steps are left out.

    pip install trl
    python -m benchmarks.preference [--quick]
"""

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measurement import against_the_best, emit, finish, in_fresh_process, spread
from benchmarks.training import SHARED, clock, write_student

SIDES = ("ours", "padded 16", "padded 4", "padding-free 16", "padding-free 4")
BATCH, WARM, RATE, BETA = 16, 4, 1e-4, 0.1


def prepare(folder: Path, steps: int) -> None:
    """Write the model, and the pairs in the order in which the batches take them."""
    from cluster.models.loading import ModelSource, load_tokenizer

    tokenizer = load_tokenizer(ModelSource(str(SHARED / "golden" / "scas" / "student")))
    parameters = write_student(folder / "student", tokenizer)
    lines = (SHARED / "data" / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[: steps * BATCH + 1]]
    others = [row["answer"] for row in rows[1:]]
    texts = [(row["question"], row["answer"], other) for row, other in zip(rows, others, strict=False)]
    write_inputs(folder, tokenizer, texts, steps)
    emit({"parameters": parameters})


def write_inputs(
    folder: Path, tokenizer: Any, texts: Sequence[tuple[str, str, str]], steps: int, batch: int = BATCH
) -> None:
    """Write the pairs for this project, and the rows for TRL in the order of this project's batches.

    Args:
        texts: question, chosen and rejected answer of each pair.
    """
    import numpy as np

    from cluster.models.loading import ModelSource, load_model
    from cluster.models.rendering import Renderer
    from cluster.storage import Place
    from selection.scoring import Scorer, Statistics
    from training.batches import global_batches
    from training.data import Example, write_examples
    from training.preference_settings import REFERENCE

    renderer = Renderer(tokenizer)
    read = [[renderer.conversation(q, text) for text in both] for q, *both in texts]
    scorer = Scorer(load_model(ModelSource(str(folder / "student"))), frozenset())
    scored = scorer.score([r for pair in read for r in pair])
    examples, rows = [], []
    for number, pair in enumerate(read):
        own = []
        for place, r in enumerate(pair):
            told = np.zeros((1, r.answer_end - r.prompt_length, 1), dtype=np.float32)
            statistics_of = scored[2 * number + place]
            assert isinstance(statistics_of, Statistics)
            told[0, 0, 0] = -statistics_of.answer_loss
            span = r.prompt_length, r.answer_end
            examples.append(Example(r.ids[: r.answer_end], *span, 1.0, number, {REFERENCE: told}))
            own.append(list(r.ids[r.prompt_length : r.answer_end]))
        rows.append({"prompt_ids": list(pair[0].ids[: pair[0].prompt_length]), "chosen_ids": own[0]})
        rows[-1]["rejected_ids"] = own[1]
    write_examples(Place(str(folder / "examples.arrow")), examples)
    ordered = [rows[i] for some in global_batches(len(rows), batch, 0, 0, steps) for i in some]
    (folder / "ordered.json").write_text(json.dumps(ordered), encoding="utf-8")


def measure_ours(folder: Path, steps: int) -> None:
    """The training loop as an experiment runs it: Ray Train and DeepSpeed, one worker."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    from cluster.models.loading import ModelSource
    from cluster.placement import Needs
    from cluster.session import RaySettings, connect
    from cluster.storage import Place
    from training.job import DONE, TrainJob
    from training.metrics import read_metrics
    from training.preference_settings import PreferenceSettings
    from training.settings import TrainSettings
    from training.trainer import WorkerGroup, train_jobs

    output = folder / f"ours-{time.monotonic_ns()}"
    source, examples = ModelSource(str(folder / "student")), str(folder / "examples.arrow")
    settings = TrainSettings(
        learning_rate=RATE,
        steps=steps,
        batch_size=BATCH,
        micro_batch_tokens=16_384,
        schedule="constant",
        warmup_ratio=0.0,
        weight_decay=0.0,
        zero_stage=0,
    )
    job = TrainJob("bench", source, examples, str(output), 0, settings, objective=PreferenceSettings(BETA))
    cpus = os.cpu_count() or 1
    with connect(RaySettings(num_cpus=cpus, object_store_mib=100), folder / "ray.log"):
        train_jobs(
            [job],
            name=output.name,
            storage=Place(str(folder / "checkpoints")),
            group=WorkerGroup(needs=Needs(cpus)),
        )
    rows = read_metrics(Place(str(output)))
    peak = json.loads((output / DONE).read_text(encoding="utf-8"))["peak_memory_mib"]
    report([r["seconds"] for r in rows], [r["loss_nats"] for r in rows], peak)


def measure_trl(folder: Path, steps: int, side: str) -> None:
    """TRL's trainer on the same tokens."""
    layout, per_device = side.split()
    times, losses = train_with_trl(folder, steps, BATCH, int(per_device), RATE, layout == "padding-free")
    report(times, losses, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def train_with_trl(
    folder: Path, steps: int, batch: int, per_device: int, rate: float, padding_free: bool
) -> tuple[list[float], list[float]]:
    """Train with TRL's DPOTrainer on the tokens of `ordered.json`. Returns seconds and losses by step."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    class OnTokens(DPOTrainer):  # type: ignore[misc]
        """TRL's trainer, for rows whose tokens are known."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    config = DPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=batch // per_device,
        max_steps=steps,
        learning_rate=rate,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        beta=BETA,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        padding_free=padding_free,
        max_length=None,
        precompute_ref_log_probs=True,
        train_sampling_strategy="sequential",
        dataloader_pin_memory=False,
        disable_tqdm=True,
        seed=0,
    )
    config.model_init_kwargs = {"dtype": "float32"}
    times, losses = list[float](), list[float]()
    torch.manual_seed(0)
    trainer = OnTokens(
        model=str(folder / "student"),
        args=config,
        train_dataset=Dataset.from_list(json.loads((folder / "ordered.json").read_text())),
        processing_class=AutoTokenizer.from_pretrained(folder / "student"),
        callbacks=[clock(times, losses)],
    )
    trainer.train()
    return times, losses


def report(seconds: Sequence[float], losses: Sequence[float], peak_mib: float) -> None:
    rate = statistics.median(BATCH / s for s in seconds[WARM:])
    emit({"pairs_per_s": rate, "losses": list(losses), "steps": len(seconds), "peak_mib": peak_mib})


def say(found: dict[str, Any], parameters: int, steps: int) -> None:
    """Print the comparison for a reader."""
    print(
        f"{parameters / 1e6:.1f}M parameters, GSM8K pairs, float32: {spread(found['speedups'])} times "
        "the best of TRL, wanted 1.2"
    )
    for side, rates in found["pairs_per_s"].items():
        peak = statistics.median(found["peak_mib"][side])
        print(f"    {side:16} {statistics.median(rates):8,.2f} pairs/s, peak {peak:6,.0f} MiB")
    worst = found["largest_loss_difference"]
    print(f"    losses differ by at most {worst:.1e} nats over {steps} steps", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="one turn of eight steps, two of the sides")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        folder, steps, side = Path(options.measure[0]), int(options.measure[1]), options.measure[2]
        if side == "prepare":
            return prepare(folder, steps)
        return measure_ours(folder, steps) if side == "ours" else measure_trl(folder, steps, side)
    if not (SHARED / "data" / "gsm8k").is_dir():
        raise SystemExit(f"GSM8K is not here: {SHARED / 'data' / 'gsm8k'}; nothing was measured")
    steps, turns = (8, 1) if options.quick else (20, 3)
    sides = SIDES[:2] if options.quick else SIDES
    with tempfile.TemporaryDirectory() as name:
        prepared = in_fresh_process(__spec__.name, "--measure", name, str(steps), "prepare")
        found = against_the_best(__spec__.name, name, steps, turns, sides, "pairs_per_s")
    say(found, prepared["parameters"], steps)
    return finish("preference", found | {"parameters": prepared["parameters"]})


if __name__ == "__main__":
    main()
