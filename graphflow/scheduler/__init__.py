"""Decides which task runs where and when, and which models lie on which device. It computes and loads nothing itself.

The same `Scheduler` drives real devices and simulated ones. It imports no torch and starts no thread.
"""

from graphflow.scheduler.core import Scheduler
from graphflow.scheduler.tasks import Device, ModelSpec, Step, Task

__all__ = ["Device", "ModelSpec", "Scheduler", "Step", "Task"]
