"""Fine-tuning against TRL's SFTTrainer: the same student, examples, batches, optimizer and precision, one
worker with all cores.

A 10M-parameter student of random weights learns GSM8K answers, with the loss on the answer only. TRL is tried
padded, padding-free and packed, with the batch whole and in quarters; its best one counts. Losses must agree
step by step (packing makes other batches, so it is compared by rate alone). Start-up and the first steps are
left out.

    pip install trl
    python -m benchmarks.training [--quick]
"""

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measurement import against_the_best, emit, finish, in_fresh_process, spread

if TYPE_CHECKING:
    from training.settings import TrainSettings

SHARED = Path(__file__).resolve().parents[2] / "shared"
SIDES = ("ours", "padded 32", "padded 8", "padding-free 32", "padding-free 8", "packed 2")
SHAPE = {
    "hidden_size": 320,
    "intermediate_size": 896,
    "num_hidden_layers": 8,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
}


@dataclass(frozen=True)
class Setup:
    """What both sides do.

    Attributes:
        batch: examples a step.
        warm: first steps that are not counted.
        lora: rank and alpha of an adapter on all linear layers; None trains all weights.
    """

    batch: int = 32
    warm: int = 4
    rate: float = 5e-4
    lora: tuple[int, int] | None = None


SETUP = Setup()


def prepare(folder: Path, steps: int) -> None:
    """Write the student, and the examples in the order in which the batches take them."""
    from cluster.models.loading import ModelSource, load_tokenizer

    tokenizer = load_tokenizer(ModelSource(str(SHARED / "golden" / "scas" / "student")))
    write_inputs(folder, tokenizer, steps)
    emit({"parameters": write_student(folder / "student", tokenizer)})


def write_inputs(folder: Path, tokenizer: Any, steps: int) -> None:
    """Write GSM8K's training examples, as many as the steps take."""
    from cluster.models.rendering import Renderer

    data = SHARED / "data" / "gsm8k" / "train.jsonl"
    rows = map(json.loads, data.read_text(encoding="utf-8").splitlines()[: steps * SETUP.batch])
    texts = [(row["question"], row["answer"]) for row in rows]
    write_examples_in_order(folder, Renderer(tokenizer), texts, steps, SETUP.batch)


def write_examples_in_order(
    folder: Path, renderer: Any, texts: Sequence[tuple[str, str]], steps: int, batch: int
) -> None:
    """Write the examples for this project, and the rows for TRL in the order of this project's batches.

    Args:
        texts: question and answer of each example.
    """
    from cluster.storage import Place
    from training.batches import global_batches
    from training.data import Example, write_examples

    examples = []
    for question, answer in texts:
        r = renderer.conversation(question, answer)
        examples.append(Example(r.ids[: r.answer_end], r.prompt_length, r.answer_end))
    write_examples(Place(str(folder / "examples.arrow")), examples)
    ordered = [examples[i] for some in global_batches(len(examples), batch, 0, 0, steps) for i in some]
    rows = [
        {"input_ids": list(e.ids), "completion_mask": [int(t >= e.loss_start) for t in range(e.length)]}
        for e in ordered
    ]
    (folder / "ordered.json").write_text(json.dumps(rows), encoding="utf-8")


def write_student(directory: Path, tokenizer: Any) -> int:
    """Write a student of random weights; returns its number of parameters."""
    import torch

    from cluster.models.loading import deepspeed_hidden, import_transformers

    transformers = import_transformers()
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=len(tokenizer),
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **SHAPE,
    )
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with deepspeed_hidden():
        model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return sum(p.numel() for p in model.parameters())


def measure_ours(folder: Path, steps: int, setup: Setup = SETUP) -> None:
    """The training loop as an experiment runs it: Ray Train and DeepSpeed, one worker."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    from cluster.models.loading import ModelSource
    from cluster.placement import Needs
    from cluster.session import RaySettings, connect
    from cluster.storage import Place
    from training.job import DONE, TrainJob
    from training.metrics import read_metrics
    from training.trainer import WorkerGroup, train_jobs

    output = folder / f"ours-{time.monotonic_ns()}"
    source, examples = ModelSource(str(folder / "student")), str(folder / "examples.arrow")
    job = TrainJob("bench", source, examples, str(output), 0, our_settings(steps, setup))
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
    seconds, tokens = [r["seconds"] for r in rows], [r["answer_tokens"] for r in rows]
    report(seconds, tokens, [r["loss_nats"] for r in rows], peak, setup.warm)


def our_settings(steps: int, setup: Setup = SETUP) -> "TrainSettings":
    """A constant rate without warm-up or decay, as TRL is given it."""
    from training.settings import LoraSettings, TrainSettings

    return TrainSettings(
        learning_rate=setup.rate,
        steps=steps,
        batch_size=setup.batch,
        micro_batch_tokens=16_384,
        schedule="constant",
        warmup_ratio=0.0,
        weight_decay=0.0,
        zero_stage=0,
        lora=LoraSettings(*setup.lora) if setup.lora else None,
    )


def measure_trl(folder: Path, steps: int, side: str, setup: Setup = SETUP) -> None:
    """SFTTrainer on the same examples in the same order."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTTrainer

    layout, per_device = side.split()
    rows = json.loads((folder / "ordered.json").read_text(encoding="utf-8"))
    times, losses = list[float](), list[float]()
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder / "student")
    trainer = SFTTrainer(
        model=str(folder / "student"),
        args=trl_settings(folder / "trl", steps, layout, int(per_device), setup),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[clock(times, losses)],
        peft_config=_adapter(setup),
    )
    trainer.train()
    if layout == "packed":
        answer = sum(sum(row["completion_mask"]) for row in rows)
        tokens = [answer / len(times)] * len(times)
    else:
        tokens = [
            float(sum(sum(r["completion_mask"]) for r in rows[k * setup.batch :][: setup.batch]))
            for k in range(len(times))
        ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report(times, tokens, losses, peak, setup.warm)


def _adapter(setup: Setup) -> Any:
    """The adapter as peft is given it, or None."""
    from peft import LoraConfig

    if setup.lora is None:
        return None
    rank, alpha = setup.lora
    return LoraConfig(
        r=rank, lora_alpha=alpha, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"
    )


def trl_settings(output: Path, steps: int, layout: str, per_device: int, setup: Setup) -> Any:
    """TRL's configuration of one side: padded, padding-free or packed."""
    from trl import SFTConfig

    config = SFTConfig(
        output_dir=str(output),
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=1 if layout == "packed" else setup.batch // per_device,
        max_steps=steps if layout != "packed" else -1,
        num_train_epochs=1,
        learning_rate=setup.rate,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        packing=layout == "packed",
        padding_free=layout == "padding-free",
        max_length=1024 if layout == "packed" else None,
        completion_only_loss=True,
        train_sampling_strategy="sequential",
        dataloader_pin_memory=False,
        disable_tqdm=True,
        seed=0,
    )
    config.model_init_kwargs = {"dtype": "float32"}
    return config


def clock(times: list[float], losses: list[float]) -> Any:
    """A callback that adds the seconds and the loss of every step."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.monotonic()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.monotonic() - self.began)

        def on_log(self, _args: Any, _state: Any, _control: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                losses.append(float(logs["loss"]))

    return Clock()


def report(
    seconds: Sequence[float], tokens: Sequence[float], losses: Sequence[float], peak_mib: float, warm: int
) -> None:
    rates = [t / s for t, s in zip(tokens[warm:], seconds[warm:], strict=True)]
    emit(
        {
            "tokens_per_s": statistics.median(rates),
            "losses": list(losses),
            "steps": len(seconds),
            "peak_mib": peak_mib,
        }
    )


def say(found: dict[str, Any], about: str, steps: int) -> None:
    """Print the comparison for a reader."""
    print(f"{about}, float32: {spread(found['speedups'])} times the best of TRL, wanted 1.5")
    for side, rates in found["tokens_per_s"].items():
        print(
            f"    {side:16} {statistics.median(rates):8,.0f} answer tokens/s, peak "
            f"{statistics.median(found['peak_mib'][side]):6,.0f} MiB"
        )
    worst = found["largest_loss_difference"]
    print(f"    losses differ by at most {worst:.1e} nats over {steps} steps", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="one turn of eight steps, three of the sides")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        folder, steps, side = Path(options.measure[0]), int(options.measure[1]), options.measure[2]
        if side == "prepare":
            return prepare(folder, steps)
        return measure_ours(folder, steps) if side == "ours" else measure_trl(folder, steps, side)
    if not (SHARED / "data" / "gsm8k").is_dir():
        raise SystemExit(f"GSM8K is not here: {SHARED / 'data' / 'gsm8k'}; nothing was measured")
    steps, turns = (8, 1) if options.quick else (12, 3)
    sides = ("ours", "padded 32", "padded 8") if options.quick else SIDES
    with tempfile.TemporaryDirectory() as name:
        prepared = in_fresh_process(__spec__.name, "--measure", name, str(steps), "prepare")
        found = against_the_best(__spec__.name, name, steps, turns, sides, "tokens_per_s")
    say(found, f"{prepared['parameters'] / 1e6:.1f}M parameters, GSM8K", steps)
    return finish("training", found | {"parameters": prepared["parameters"]})


if __name__ == "__main__":
    main()
