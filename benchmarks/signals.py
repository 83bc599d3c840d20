r"""What ARTE's two published signals are worth on a pretrained language model, before a run rests on them.

In-context ability: the share of word problems that a student gets right, greedily, with no demonstration and
with one, which is the same for all of them, in two manners. Influence: Spearman's rank correlation of the
exact one-step form with the first-order form, on drafts in five manners, with an adapter and after the same
warm-up, for the student as it comes.

    python -m benchmarks.signals --world store/miniature/ID [--items 100] [--drafts 100] [--references 16] \
        [--parts context influence]
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.measurement import finish
from benchmarks.pretrained import MANNERS, SCHOOLED, STUDENT
from cluster.models.loading import load_model
from cluster.models.messages import plain
from cluster.models.proof import SAMPLING, prove
from cluster.models.sampling import Sampling, generation_stop_ids, sample
from jobs.experiment.elicit import DEMONSTRATION, Influence
from jobs.experiment.students import Student
from jobs.files.answers import Row
from jobs.files.questions import Question
from jobs.stages.states import ModelState, first_state
from jobs.systems.arte.preferring import OneStep, Told
from selection.checking import process_verifier
from selection.preferences import standard_error
from selection.verification import Case, VerifySettings
from training.settings import LoraSettings

SHOWN = ("in sentences", "in listed")  # the manners of demonstrations
MAX_NEW_TOKENS = 160
ADAPTER = LoraSettings(r=16, alpha=32)
RATES = (1e-3, 1e-4)
Problem = dict[str, Any]


def answered_right(student: ModelState, prompts: Sequence[str], items: Sequence[Problem]) -> np.ndarray:
    """1 where the student's greedy answer to a prompt is right, 0 elsewhere [items]."""
    model, renderer = load_model(student.source, "cpu"), student.renderer()
    stops = renderer.stop_ids | generation_stop_ids(model)
    way = prove(model, SAMPLING).way
    ids = [renderer.prompt(plain(text)) for text in prompts]
    cases = []
    for found, item in zip(sample(model, ids, Sampling(MAX_NEW_TOKENS, stops, way=way)), items, strict=True):
        if isinstance(found, Exception):
            raise found
        text = renderer.answer_text(found.ids) if found.finish == "stop" else ""
        cases.append(Case(text, (item["reference"],)))
    verdicts = process_verifier(VerifySettings("numeric")).check_all(cases)
    return np.array([float(v.state == "correct") for v in verdicts])


def in_context(student: ModelState, rows: Sequence[Problem], count: int) -> dict[str, Any]:
    """Accuracy in per cent without a demonstration, and with one in each manner, with the change's
    interval.
    """
    shown, items = rows[0], rows[1 : 1 + count]
    none = answered_right(student, [r["question"] for r in items], items)
    told: dict[str, Any] = {"items": len(items), "no demonstration": round(100 * none.mean(), 1)}
    for manner in SHOWN:
        filled = DEMONSTRATION.replace("{question}", shown["question"]).replace("{rationale}", shown[manner])
        one = answered_right(student, [filled.replace("{item}", r["question"]) for r in items], items)
        change, error = 100 * (one - none).mean(), 196 * standard_error((one - none).tolist())
        about = f"{100 * one.mean():.1f}, change {change:+.1f} ({change - error:.1f} to {change + error:.1f})"
        told[f"one {manner}"] = about
        print(student.name, manner, about, flush=True)
    return told


def influences(
    student: ModelState, rows: Sequence[Problem], drafts: int, references: int, rate: float
) -> dict[str, Any]:
    """How the two forms rank the same drafts, all of them and within each manner."""
    questions = [Question(r["id"], plain(r["question"]), (r["reference"],)) for r in rows]
    told = [
        Told(q, r[MANNERS[k % len(MANNERS)]]) for k, (q, r) in enumerate(zip(questions, rows, strict=True))
    ]
    asked = [
        Row(f"a{k}", q.id, "t", q.prompt, one.text)
        for k, (q, one) in enumerate(zip(questions[:drafts], told[:drafts], strict=True))
    ]
    others, warm = told[drafts : drafts + references], told[drafts + references :][:64]
    scores = {}
    for form in ("exact", "first_order"):
        settings = Influence(warm_steps=8, batch_size=8, learning_rate=rate, references=references, form=form)
        handler = OneStep(student, settings, others, warm, ADAPTER, 0, 0.0)
        scores[form] = handler.compute(asked)["score"].to_numpy()
        print(student.name, rate, form, np.round(scores[form][:5], 6), flush=True)
    exact, first = scores["exact"], scores["first_order"]
    manner = np.arange(drafts) % len(MANNERS)
    within = [spearmanr(exact[manner == m], first[manner == m]).statistic for m in range(len(MANNERS))]
    return {
        "drafts": drafts,
        "helpful by the exact form": int((exact > 0).sum()),
        "rank correlation": round(float(spearmanr(exact, first).statistic), 3),
        "within a manner, mean": round(float(np.mean(within)), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--world", required=True, help="the folder of the pretrained world")
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--drafts", type=int, default=100)
    parser.add_argument("--references", type=int, default=16)
    parser.add_argument(
        "--parts", nargs="+", choices=("context", "influence"), default=["context", "influence"]
    )
    options = parser.parse_args()
    world = Path(options.world)
    lines = (world / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    figures: dict[str, Any] = {}
    for name, folder in (("smol", STUDENT), ("schooled", SCHOOLED)):
        student = first_state(Student(name=name, path=str(world / folder)))
        for rate in RATES if name == "smol" and "influence" in options.parts else ():
            told = influences(student, rows, options.drafts, options.references, rate)
            figures[f"influence, {name}, {rate:.0e}"] = told
            print(name, rate, told, flush=True)
        if "context" in options.parts:
            figures[f"in context, {name}"] = in_context(student, rows, options.items)
    finish("signals", figures)


if __name__ == "__main__":
    main()
