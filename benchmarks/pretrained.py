"""The four loops on a pretrained language model: asking, scoring, training and evaluating, each beside the
programs people use.

The models are those of the pretrained world (docs/miniature.md), SmolLM2-135M and teachers made from it, on
its word problems. Asking and evaluating are greedy answers, against transformers' `generate` in sorted and
unsorted batches. Scoring is five worked solutions a question, against one row a forward pass. Training is an
adapter (r 16 on all linear layers), against TRL's SFTTrainer with peft, padded and padding-free. Sides run in
turns, in fresh processes, with all cores.

    pip install trl
    python -m benchmarks.pretrained [--quick] [--only train] [--world store/miniature/ID]
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measurement import against_the_best, emit, finish, in_fresh_process, spread, timed
from benchmarks.sampling import compare
from benchmarks.scoring import score_plainly
from benchmarks.training import Setup, measure_ours, measure_trl, say, write_examples_in_order

TEACHER, STUDENT, SCHOOLED = "sentences-strong/model", "base/smollm2-135m/model", "schooled/step-12"
MANNERS = ("in sentences", "in equations", "in listed", "in wordy", "in backwards")
SAMPLING = ("ours", "generate 8 sorted", "generate 16 sorted")
TRAINING = ("ours", "padded 8", "padded 2", "padding-free 8")
ADAPTER = {"r": 16, "alpha": 32}
LOOPS = ("ask", "evaluate", "score", "train")
SETUP = Setup(batch=8, warm=2, rate=1e-3, lora=(ADAPTER["r"], ADAPTER["alpha"]))


def questions_of(world: str, count: int) -> list[dict[str, Any]]:
    """The first training questions of the world."""
    lines = (Path(world) / "train.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    return [json.loads(line) for line in lines]


def measure_scoring(world: str, side: str, count: int) -> None:
    """Five worked solutions of each question; ours returns every statistic, the plain way SCAS alone."""
    from cluster.models.loading import ModelSource, load_model, load_tokenizer
    from cluster.models.rendering import Renderer
    from selection.scoring import Scorer

    source = ModelSource(str(Path(world) / STUDENT))
    renderer, model = Renderer(load_tokenizer(source)), load_model(source, "cpu")
    told = [
        renderer.conversation(row["question"], row[manner])
        for row in questions_of(world, count)
        for manner in MANNERS
    ]
    scorer = Scorer(model, renderer.special_ids)
    work = (lambda: scorer.score(told)) if side == "ours" else (lambda: score_plainly(model, told))
    seconds = timed(work, "cpu")
    emit({"tokens_per_s": sum(r.answer_end - r.prompt_length for r in told) / seconds, "answers": len(told)})


def prepare_training(world: str, folder: Path, steps: int) -> None:
    """Write the examples, a worked solution each in turn of the manners, and say where the student is."""
    from cluster.models.loading import ModelSource, load_tokenizer
    from cluster.models.rendering import Renderer

    student = Path(world) / STUDENT
    (folder / "student").symlink_to(student.resolve())
    renderer = Renderer(load_tokenizer(ModelSource(str(student))))
    rows = questions_of(world, steps * SETUP.batch)
    texts = [(row["question"], row[MANNERS[k % len(MANNERS)]]) for k, row in enumerate(rows)]
    write_examples_in_order(folder, renderer, texts, steps, SETUP.batch)
    emit({})


def compare_scoring(world: str, count: int, turns: int) -> dict[str, Any]:
    """Both ways of scoring in turns."""
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(turns):
        for side, found in rates.items():
            got = in_fresh_process(__spec__.name, "--measure", "score", world, side, str(count))
            found.append(got["tokens_per_s"])
    ratios = [a / b for a, b in zip(rates["ours"], rates["plain"], strict=True)]
    print(
        f"scoring: {spread(ratios)} times the plain way; {spread(rates['ours'])} answer tokens/s", flush=True
    )
    return {"speedups": ratios, "tokens_per_s": rates}


def compare_training(world: str, steps: int, turns: int) -> dict[str, Any]:
    """Ray Train with DeepSpeed and an adapter, against TRL with peft."""
    with tempfile.TemporaryDirectory() as name:
        in_fresh_process(__spec__.name, "--measure", "prepare", world, name, str(steps))
        found = against_the_best(__spec__.name, name, steps, turns, TRAINING, "tokens_per_s")
    say(found, "SmolLM2-135M with an adapter, word problems", steps)
    return found


def measure(options: list[str]) -> None:
    """One side of one turn, in this process."""
    match options:
        case ["score", world, side, count]:
            measure_scoring(world, side, int(count))
        case ["prepare", world, folder, steps]:
            prepare_training(world, Path(folder), int(steps))
        case [folder, steps, "ours"]:
            measure_ours(Path(folder), int(steps), SETUP)
        case [folder, steps, side]:
            measure_trl(Path(folder), int(steps), side, SETUP)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="one turn of fewer questions and steps")
    parser.add_argument("--only", nargs="+", choices=LOOPS, help="these loops alone")
    parser.add_argument(
        "--world", help="the folder of the pretrained world, as `tutelage miniature` prints it"
    )
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(options.measure)
    if not options.world or not (Path(options.world) / STUDENT).is_dir():
        raise SystemExit(
            f"no pretrained world at {options.world}: `tutelage miniature --world pretrained` builds one and "
            "prints where; nothing was measured"
        )
    world, turns = Path(options.world), 1 if options.quick else 3
    asked, scored, steps = (16, 8, 5) if options.quick else (48, 24, 8)
    figures: dict[str, Any] = {}
    only = options.only or LOOPS
    for what, model, questions in (("ask", TEACHER, "train.jsonl"), ("evaluate", SCHOOLED, "evaluate.jsonl")):
        if what not in only:
            continue
        figures[what] = compare(world / model, world / questions, asked, turns, "cpu", SAMPLING, repeats=1)
    if "score" in only:
        figures["score"] = compare_scoring(str(world), scored, turns)
    if "train" in only:
        figures["train"] = compare_training(str(world), steps, turns)
    return finish("pretrained", figures)


if __name__ == "__main__":
    main()
