"""What a GPU does with this project's four loops: do they say what the CPU says, and how fast are they?

Each part is a process of its own with a time limit, the most useful ones first, and prints its line as it
ends. A part that fails prints why, and the next one runs. Models have random weights and are made here.

    python -m benchmarks.gpu                        # on one GPU, at most twelve minutes
    python -m benchmarks.gpu --device cpu --shapes small --seconds 120
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measurement import finish, matmul_flops, peak_memory, reset_peak_memory, timed
from benchmarks.scoring_cases import SHAPE_135M, SMALL, Case, build, necessary_flop
from benchmarks.steering import SHAPE_17B, readings

SHAPES = {"small": SMALL, "135m": SHAPE_135M, "1.7b": SHAPE_17B}
PARTS = ("agree", "score", "sample", "train", "steer")
LIMIT_S = 720.0


def agree(shape: str, device: str) -> str:
    """Scores and greedy tokens in float32 on the device and on the CPU."""
    import torch

    from cluster.models.proof import SAMPLING, prove
    from cluster.models.sampling import Completion, Sampling, sample
    from selection.scoring import Scorer, Statistics

    torch.backends.cuda.matmul.allow_tf32 = False
    case = Case("", SHAPES[shape], 40, 30, 3, 4)
    said = {}
    for where in dict.fromkeys(("cpu", device)):
        model, rows = build(case, "float32", "cpu")
        model = model.to(where)
        scored = Scorer(model, frozenset()).score(rows)
        way = prove(model, SAMPLING).way
        found = sample(model, [r.ids[: r.prompt_length] for r in rows], Sampling(16, frozenset(), way=way))
        ids = [c.ids for c in found if isinstance(c, Completion)]
        losses = [s.answer_loss / s.n_answer for s in scored if isinstance(s, Statistics)]
        said[where] = (losses, ids, way)
    (one, a, _), (two, b, way) = said["cpu"], said[device]
    largest = max(abs(x - y) for x, y in zip(one, two, strict=True))
    same = sum(x == y for x, y in zip(a, b, strict=True))
    if largest > 1e-3:
        raise AssertionError(f"mean losses differ by {largest:.2g} nats")
    return (
        f"mean losses differ by {largest:.1e} nats at most; {same} of {len(a)} greedy answers equal ({way})"
    )


def score(shape: str, device: str, dtype: str) -> str:
    """Every statistic of an answer, in answers and tokens a second and as a share of the matrix rate."""
    from selection.scoring import Scorer

    many = 1 if device == "cpu" else 40
    case = Case("", SHAPES[shape], 120, 250, 9, many)
    model, rows = build(case, dtype, device)
    scorer = Scorer(model, frozenset())
    scorer.score(rows[:9])
    before = reset_peak_memory(device)
    seconds = timed(lambda: scorer.score(rows), device)
    share = necessary_flop(case, rows) / seconds / matmul_flops(dtype, device)
    tokens = sum(r.length - r.prompt_length for r in rows)
    return (
        f"{len(rows) / seconds:,.1f} answers/s, {tokens / seconds:,.0f} answer tokens/s, {share:.0%} of the "
        f"matrix rate, peak {(peak_memory(device) - before) / 2**20:,.0f} MiB beside the model"
    )


def sample_(shape: str, device: str, dtype: str) -> str:
    """Greedy answers to short prompts, in tokens a second."""
    from cluster.models.proof import SAMPLING, prove
    from cluster.models.sampling import Completion, Sampling, sample

    rows, length = (16, 32) if device == "cpu" else (256, 256)
    case = Case("", SHAPES[shape], 120, 20, 1, rows)
    model, drawn = build(case, dtype, device)
    way = prove(model, SAMPLING).way
    prompts, found = [r.ids[: r.prompt_length] for r in drawn], list[Any]()
    settings = Sampling(length, frozenset(), way=way)
    sample(model, prompts[:4], settings)
    seconds = timed(lambda: found.extend(sample(model, prompts, settings)), device)
    tokens = sum(len(c.ids) for c in found if isinstance(c, Completion))
    return f"{tokens / seconds:,.0f} tokens/s, {rows} answers at once ({way})"


def train(shape: str, device: str, dtype: str) -> str:
    """Steps of the training loop with LoRA and with all weights, on Ray Train and DeepSpeed."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    from cluster.models.loading import ModelSource
    from cluster.placement import Needs
    from cluster.session import RaySettings, connect
    from cluster.storage import Place
    from training.data import Example, write_examples
    from training.job import TrainJob
    from training.metrics import read_metrics
    from training.settings import LoraSettings, TrainSettings
    from training.trainer import WorkerGroup, train_jobs

    steps, batch = (3, 2) if device == "cpu" else (12, 32)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        case = Case("", SHAPES[shape], 120, 250, 1, steps * batch)
        rows = write_model(place / "student", case, dtype)
        examples = [Example(r.ids, r.prompt_length, r.answer_end) for r in rows]
        write_examples(Place(str(place / "examples.arrow")), examples)
        gpus = int(device != "cpu")
        with connect(RaySettings(num_cpus=2, object_store_mib=100), place / "ray.log"):
            for name, lora in (("lora", LoraSettings()), ("all weights", None)):
                settings = TrainSettings(
                    steps=steps,
                    batch_size=batch,
                    micro_batch_tokens=8192,
                    lora=lora,
                    learning_rate=1e-5,
                    precision="bfloat16" if dtype == "bfloat16" else "float32",
                )
                source = ModelSource(str(place / "student"), dtype)  # type: ignore[arg-type]
                job = TrainJob(name, source, str(place / "examples.arrow"), str(place / name), 0, settings)
                group = WorkerGroup(needs=Needs(1.0, gpus))
                train_jobs(
                    [job], name=name.replace(" ", "-"), storage=Place(str(place / "kept")), group=group
                )
                told = read_metrics(Place(job.output))[steps // 3 :]
                seconds = sum(r["seconds"] for r in told)
                tokens = sum(e.length for e in examples) / steps * len(told)
                lines.append(f"{name} {tokens / seconds:,.0f} tokens/s")
    return ", ".join(lines)


def write_model(directory: Path, case: Case, dtype: str) -> list[Any]:
    """Write a model of random weights with a tokenizer that knows a few words. Returns the case's rows."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from jobs.miniature.initial_model import TEMPLATE

    model, rows = build(case, dtype, "cpu")
    model.save_pretrained(directory)
    known = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "a": 3}
    words = Tokenizer(models.WordLevel(known, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(directory)
    return rows


def steer(shape: str, device: str, dtype: str) -> str:
    """The teacher pass of OGLS-SD over one question's wrong rollouts, in tokens of rollouts a second."""
    import torch
    import transformers

    from selection.steering import TeacherPass

    context, scored = (64, 32) if device == "cpu" else (2000, 256)
    config = transformers.LlamaConfig(**SHAPES[shape], max_position_embeddings=16_384)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()
    rows, teacher = readings(config.vocab_size, 120, context, scored), TeacherPass(model)
    arrays: Any = ("h0", "h_pos", "h_neg")
    teacher.read(rows[:1], arrays)
    seconds = timed(lambda: teacher.read(rows, arrays), device)
    return f"{sum(len(r.tokens) for r in rows) / seconds:,.0f} rollout tokens/s, context {context}"


def run_part(part: str, shape: str, device: str, dtype: str) -> None:
    """One part, in this process. Prints its line."""
    if part == "agree":
        line = agree(shape, device)
    else:
        line = {"score": score, "sample": sample_, "train": train, "steer": steer}[part](shape, device, dtype)
    print(f"{part:7} {shape:6} {dtype} on {device}: {line}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--shapes", nargs="+", default=["135m", "1.7b"], choices=SHAPES)
    parser.add_argument("--dtype", default=None, help="bfloat16 on a GPU, float32 on a CPU")
    parser.add_argument("--seconds", type=float, default=LIMIT_S, help="the limit of all parts together")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    a = parser.parse_args()
    dtype = a.dtype or ("float32" if a.device == "cpu" else "bfloat16")
    if a.part:
        return run_part(a.part, a.shapes[0], a.device, dtype)
    until, done = time.monotonic() + a.seconds, dict[str, bool]()
    for shape in a.shapes:
        for part in PARTS:
            if part == "agree" and shape != a.shapes[0]:
                continue
            about = ["--part", part, "--shapes", shape, "--device", a.device, "--dtype", dtype]
            left = until - time.monotonic()
            done[f"{part} {shape}"] = left > 0 and ended_well([*about], left)
    return finish("gpu", {"parts": done})


def ended_well(arguments: list[str], seconds: float) -> bool:
    """Run one part in a process. Says why it failed."""
    name = " ".join(arguments[1:4:2])
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu", *arguments],
            timeout=seconds,
            stdout=None,
            stderr=subprocess.PIPE,
            text=True,
        )
    except subprocess.TimeoutExpired:
        print(f"{name}: not finished when the time was over", flush=True)
        return False
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:] or ["no output"]
        print(f"{name}: failed: {last[0][:300]}", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    main()
