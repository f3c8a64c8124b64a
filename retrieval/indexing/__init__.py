"""An index in one piece: ``index`` builds, saves, opens and changes it, ``indexed_photos`` is what it holds in memory.

``columns`` and ``manifest`` are its files, ``description`` is what an index knows of all its photos, and ``backends``
find nearest neighbours.
"""
