"""Learning from pairs as TRL's DPOTrainer does it: the same pairs, model and seed, the same losses."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.preference import BETA, RATE, write_inputs
from cluster.models.loading import ModelSource, load_tokenizer
from jobs.miniature.tasks import draw_episodes, work_out
from tests.engine import job, losses
from tests.runs import ROOT
from tests.worker_group import WorkerGroup, train
from training.preference_settings import PreferenceSettings

STEPS, BATCH = 20, 8
TRL = """
import json, sys
from pathlib import Path
from benchmarks.preference import train_with_trl
folder, steps, batch, per_device, rate, free = sys.argv[1:]
_, losses = train_with_trl(Path(folder), int(steps), int(batch), int(per_device), float(rate), free == "free")
print("LOSSES" + json.dumps(losses))
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("trl") is None, reason="TRL is not installed")
@pytest.mark.parametrize("layout", ["padded", "free"])
def test_the_losses_of_twenty_steps_are_trl_s(
    one: WorkerGroup, tiny_model: Path, tmp_path: Path, layout: str
) -> None:
    shutil.copytree(tiny_model, tmp_path / "student")
    episodes = draw_episodes(48, seed=3)
    texts = [(e.question, work_out(e, "running"), work_out(e, "wordy")) for e in episodes]
    write_inputs(tmp_path, load_tokenizer(ModelSource(str(tiny_model))), texts, STEPS, BATCH)
    about = {"steps": STEPS, "batch_size": BATCH, "learning_rate": RATE, "schedule": "constant"}
    about |= {"warmup_ratio": 0.0, "weight_decay": 0.0, "zero_stage": 0, "micro_batch_tokens": 16_384}
    own = job("ours", tmp_path / "student", tmp_path / "examples.arrow", tmp_path, seed=0, **about)
    own = replace(own, objective=PreferenceSettings(BETA))
    one.run(train, [own], tmp_path / "checkpoints")
    given = [str(tmp_path), str(STEPS), str(BATCH), "4", str(RATE), layout]
    done = subprocess.run(
        [sys.executable, "-c", TRL, *given],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = json.loads(done.stdout.split("LOSSES")[1])
    assert len(theirs) == STEPS
    assert losses(own) == pytest.approx(theirs, abs=1e-4)
    assert losses(own)[-1] < losses(own)[0] - 1e-3  # something was learned
