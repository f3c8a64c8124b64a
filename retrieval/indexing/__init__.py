"""The index of one process: photos and their descriptors, in memory and on the disk.

``index`` holds it, ``columns`` and ``manifest`` are its files, ``compatibility`` refuses what does not fit;
``backends`` find nearest neighbours.
"""
