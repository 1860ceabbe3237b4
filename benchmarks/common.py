"""Side-by-side timing: the two candidates take turns, so that a noisy machine troubles both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

import graphflow.nodes  # noqa: F401  before diffusers: it makes a CPU machine's torchvision importable


@dataclass(frozen=True)
class Timing:
    """Of one candidate: median seconds, least seconds of CPU time, and peak bytes of device memory (0 on the CPU)."""

    seconds: float
    peak_bytes: int
    cpu_seconds: float = 0.0


def side_by_side(candidates: dict[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, Timing]:
    """Run every candidate once to warm up, then `repeats` times in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in candidates}
    peaks: dict[str, int] = {}
    for repeat in range(repeats + 1):
        for name, run in candidates.items():
            if device.type == "cuda":
                torch.cuda.synchronize(device)
                torch.cuda.reset_peak_memory_stats(device)
            start, cpu_start = time.perf_counter(), time.process_time()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
                peaks[name] = torch.cuda.max_memory_allocated(device)
            if repeat > 0:
                seconds[name].append(time.perf_counter() - start)
                cpu_seconds[name].append(time.process_time() - cpu_start)
    return {
        name: Timing(statistics.median(seconds[name]), peaks.get(name, 0), min(cpu_seconds[name]))
        for name in candidates
    }


def print_row(title: str, ours: Timing, theirs: Timing, note: str) -> None:
    """One line: both times, the ratio (above 1: ours is faster), peak memory where it is known.

    On a CPU the ratio of CPU time stands beside it, which other processes trouble less.
    """
    line = f"{title:30s} ours {ours.seconds:8.3f} s   theirs {theirs.seconds:8.3f} s   "
    line += f"ratio {theirs.seconds / ours.seconds:5.2f}   {note}"
    if not ours.peak_bytes and ours.cpu_seconds:
        line += f"   CPU ratio {theirs.cpu_seconds / ours.cpu_seconds:.2f}"
    if ours.peak_bytes:
        line += f"   peak {ours.peak_bytes / 2**20:.0f} / {theirs.peak_bytes / 2**20:.0f} MiB"
    print(line, flush=True)
