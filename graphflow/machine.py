"""What this machine has beside GPUs: cores, memory and what its CPU can do, within the limits of the container."""

from __future__ import annotations

import os
import platform
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")  # limits of a container: cgroup version 2, and version 1 in its folder `memory`
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
_FLAGS = {  # what makes a difference to torch on a CPU, as the kernel calls it
    "avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "avx512_bf16": "AVX-512 BF16", "amx_bf16": "AMX BF16",
    "avx512_fp16": "AVX-512 FP16", "asimd": "NEON", "sve": "SVE", "bf16": "BF16", "asimdhp": "FP16",
}  # fmt: skip
BFLOAT16 = frozenset({"AVX-512 BF16", "AMX BF16", "BF16"})


@dataclass(frozen=True)
class Memory:
    """Main memory: bytes in all, and what could be had now (None: this system does not tell)."""

    total: int
    available: int | None


def memory() -> Memory | None:
    """Main memory, or the container's share of it; None where the system does not tell."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
    found = re.search(r"MemAvailable:\s*(\d+) kB", _text(Path("/proc/meminfo")))
    available = int(found[1]) * 1024 if found else None
    limit = min([total, *(int(text) for name in _LIMITS if (text := _text(_GROUP / name).strip()).isdecimal())])
    if limit < total and available is not None:
        used = _text(_GROUP / "memory.current").strip()
        available = min(available, limit - int(used)) if used.isdecimal() else min(available, limit)
    return Memory(limit, available)


def cores() -> int:
    """How many cores this process may use."""
    with suppress(AttributeError):  # Windows and macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name() -> str:
    """The CPU's model, or its architecture."""
    found = re.search(r"(?m)^model name\s*:\s*(.+)$", _text(Path("/proc/cpuinfo")))
    return found[1].strip() if found else platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    """Instruction sets that torch makes use of; empty where the system does not tell."""
    found = re.search(r"(?m)^(?:flags|Features)\s*:\s*(.+)$", _text(Path("/proc/cpuinfo")))
    flags = set(found[1].split()) if found else set()
    return [name for flag, name in _FLAGS.items() if flag in flags]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
