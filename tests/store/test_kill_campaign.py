"""The kill campaign of the benchmarks, in small: killed processes leave a store that is whole and blocks nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parents[2] / "benchmarks" / "kill_campaign.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_processes_leave_a_whole_store() -> None:
    command = [sys.executable, str(CAMPAIGN), "--kills", "6", "--processes", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verify clean; a rerun is bit-equal" in done.stdout
