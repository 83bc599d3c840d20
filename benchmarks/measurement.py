"""What every benchmark needs: fresh processes for each side, their peak memory, the machine's matrix-product
rate, one JSON line.

Times on a shared machine mean little alone, so the sides of a comparison run in turns and are compared as
ratios within a turn.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

RESULT = "RESULT "


def in_fresh_process(
    module: str, *arguments: str, environment: Mapping[str, str] | None = None, timeout_s: float = 3600
) -> dict[str, Any]:
    """Run `python -m module arguments`, which ends with `emit(...)`, and return what it emitted."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **(environment or {})}, timeout=timeout_s
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if done.returncode or not lines:
        raise RuntimeError(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )
    return dict(json.loads(lines[-1].removeprefix(RESULT)))


def against_the_best(
    module: str, folder: str, steps: int, turns: int, sides: Sequence[str], rate: str
) -> dict[str, Any]:
    """All sides of a training in turns. Each ratio is against that turn's best other side than `ours`.

    Args:
        module: measures one side: `--measure FOLDER STEPS SIDE`.
        rate: the name of the figure that is compared. A side that packs makes other batches, so its losses
            are not compared.
    """
    ratios, worst = list[float](), 0.0
    rates, peaks = {side: list[float]() for side in sides}, {side: list[float]() for side in sides}
    for _ in range(turns):
        turn = {side: in_fresh_process(module, "--measure", folder, str(steps), side) for side in sides}
        for side, got in turn.items():
            rates[side].append(got[rate])
            peaks[side].append(got["peak_mib"])
            if not side.startswith("packed"):
                pairs = zip(turn["ours"]["losses"], got["losses"], strict=True)
                worst = max(worst, *(abs(a - b) for a, b in pairs))
        ratios.append(turn["ours"][rate] / max(t[rate] for s, t in turn.items() if s != "ours"))
    return {
        "speedup": statistics.median(ratios),
        "speedups": ratios,
        "largest_loss_difference": worst,
        rate: rates,
        "peak_mib": peaks,
    }


def emit(figures: Mapping[str, Any]) -> None:
    """Hand figures to the parent process."""
    print(RESULT + json.dumps(figures), flush=True)


def finish(name: str, figures: Mapping[str, Any]) -> None:
    """The last line of a benchmark: its figures as one JSON object."""
    print(json.dumps({"benchmark": name, "machine": machine(), **figures}), flush=True)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    cpu = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")),
        platform.machine(),
    )
    return {"cpu": cpu, "threads": torch.get_num_threads(), "gpu": gpu, "torch": torch.__version__}


def _cpuinfo() -> list[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return file.readlines()
    except OSError:
        return []


def matmul_flops(dtype: str, device: str = "cpu", seconds: float = 0.6) -> float:
    """The rate, in floating-point operations per second, of a large square matrix product: the median of
    several.
    """
    import torch

    size = 2048 if device == "cpu" else 8192
    a = torch.randn(size, size, device=device).to(getattr(torch, dtype))
    out = torch.empty_like(a)
    torch.mm(a, a, out=out)
    rates: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(rates) < 5:
        rates.append(2 * size**3 / timed(lambda: torch.mm(a, a, out=out), device))
    return statistics.median(rates)


def timed(work: Callable[[], Any], device: str = "cpu") -> float:
    """Seconds that `work` takes, the device's queue included."""
    import torch

    if device != "cpu":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def reset_peak_memory(device: str = "cpu") -> int:
    """Forget earlier peaks; returns the bytes in use now."""
    import torch

    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_allocated())
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    return _status_bytes("VmRSS")


def peak_memory(device: str = "cpu") -> int:
    """The most bytes in use since `reset_peak_memory`."""
    import torch

    return int(torch.cuda.max_memory_allocated()) if device != "cpu" else _status_bytes("VmHWM")


def _status_bytes(key: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key + ":"))


def spread(values: Sequence[float]) -> str:
    """Median and range, for a table."""
    middle = statistics.median(values)
    return (
        f"{middle:.2f}"
        if len(values) == 1
        else f"{middle:.2f} ({min(values):.2f} to {max(values):.2f}, n={len(values)})"
    )
