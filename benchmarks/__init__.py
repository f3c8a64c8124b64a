"""Benchmarks: most files run as ``python -m benchmarks.NAME``, and say in their docstrings what they measure.

The others are what these share: ``results_file``, ``timing``, ``plots``, ``methods`` and more. ``results`` has what was
measured, ``lists`` the photos that some benchmarks need, and ``NOTES.md`` what was tried and found.
"""
