"""The script for a GPU is kept ready: dry on the CPU, each of its parts says its line."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks.gpu import PARTS
from tests.runs import ROOT


@pytest.mark.long
def test_the_script_runs_dry_on_the_cpu() -> None:
    done = subprocess.run(
        ["sh", "benchmarks/gpu.sh", "--device", "cpu", "--shapes", "small", "--seconds", "3000"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable},
    )
    lines = done.stdout.splitlines()
    # libraries print lines of their own
    said = [line.split()[0] for line in lines if line.startswith(PARTS)]
    assert said == list(PARTS), done.stdout + done.stderr
    assert "failed" not in done.stdout
    parts = json.loads(lines[-1])["parts"]
    assert parts == {f"{part} small": True for part in PARTS}
