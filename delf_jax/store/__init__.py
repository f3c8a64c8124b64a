"""The feature store: a folder of Parquet parts and a manifest that says which of them count.

``reader`` opens, ``writer`` adds, ``repair`` mends; ``parts`` and ``manifest`` are the formats.
"""
