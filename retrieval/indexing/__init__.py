"""An index in one piece: ``index`` builds, saves, opens and changes it, ``indexed_photos`` is what it holds in memory.

``columns`` and ``manifest`` are its files, ``compatibility`` refuses features that do not fit, and ``backends`` find
nearest neighbours.
"""
