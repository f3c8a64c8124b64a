"""Files that appear whole or not at all, on a disk or an object store, and the formats built on them.

``atomic`` replaces files, ``folder`` reaches any fsspec address, ``lease`` keeps writers apart, ``json_files`` and
``model_file`` read and write.
"""
