"""The number of processor cores that this process may use."""

import os


def usable_cores() -> int:
    """How many cores the system lets this process run on; containers often get fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
