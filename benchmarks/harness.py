"""Time contenders side by side, measure their memory, write tables."""

import gc
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

import platform

GOAL_MET, GOAL_MISSED = "- Goal met:", "- Goal missed:"

Contenders = dict[str, Callable[[], object]]


def alternate(contenders: Contenders, rounds: int) -> dict[str, list[float]]:
    """Run every contender once untimed, then `rounds` times in turn; return the seconds of each, by round."""
    for run in contenders.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            gc.collect()
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Write median (lower quartile–upper quartile) with so many significant digits."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else 3 * [values[0]]
    return f"{figure(middle, digits)} ({figure(low, digits)}–{figure(high, digits)})"


def figure(value: float, digits: int = 3) -> str:
    """Write a number with so many significant digits, never in scientific notation."""
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    return f"{float(text):,.0f}" if "e" in text or abs(value) >= 10**digits else text


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [their / our for our, their in zip(ours, theirs, strict=True)]


def goal(what: str, values: Sequence[float], *, at_least: float | None = None, at_most: float | None = None) -> str:
    """Say as an entry of a list whether all values are as wanted, how many are, and how far they lie apart."""
    low, high = -math.inf if at_least is None else at_least, math.inf if at_most is None else at_most
    met = sum(low <= value <= high for value in values)
    limit = f"at least {low:g}" if at_most is None else f"at most {high:g}"
    found = (
        figure(values[0])
        if len(values) == 1
        else f"{met} of {len(values)}; {figure(min(values))} to {figure(max(values))}"
    )
    return f"{GOAL_MET if met == len(values) else GOAL_MISSED} {what}: {found} ({limit} was wanted)."


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Write a Markdown table: the first column to the left, the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def peak_tensor_megabytes(run: Callable[[], object]) -> float:
    """Return the most megabytes of tensors that `run` held at a time, beyond those before, by PyTorch's count."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]")
    held = most = 0
    for _, change in changes:
        held += change
        most = max(most, held)
    return most / 1e6


def machine() -> str:
    """Describe what the figures depend on."""
    processor = torch.cpu.get_capabilities().get("cpu_name") or ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = processor or platform.processor()
    capabilities = torch.cpu.get_capabilities()
    extensions = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if capabilities.get(name)]
    return (
        f"{processor}, {torch.get_num_threads()} cores for PyTorch ({', '.join(extensions) or 'no extensions named'}), "
        f"{platform.system()}, Python {platform.python_version()}, PyTorch {torch.__version__}"
    )
