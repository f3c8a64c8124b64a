"""How many cores there are for this process."""

import os


def usable_cores() -> int:
    """Cores that the system lets this process run on, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
