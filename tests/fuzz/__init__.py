"""Hostile input for every reader: ``python -m tests.fuzz photo --runs 100000``, or ``--engine atheris``."""
