"""The feature store: a folder of Parquet parts, and a commit log that says which of them count.

``reader``, ``writer`` and ``repair`` use it. ``parts``, ``manifest`` and ``run_report`` are the formats, ``commit_log``
is the commit protocol, and ``version_0_1`` reads what was there before it.
"""
