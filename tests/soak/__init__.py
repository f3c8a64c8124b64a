"""Faults, brought about for real, over and over: ``python -m tests.soak``. CI brings about each a few times."""
