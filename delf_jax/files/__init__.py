"""Files that appear whole or not at all, on a disk or an object store, and the formats built on them.

``atomic`` replaces and creates files, ``folder`` reaches any fsspec address, ``lease`` keeps writers apart,
``changer`` also those of what is replaced as a whole, ``file_names`` makes names that every disk takes.
``json_files``, ``envelope`` (JSON with a format, a version and a checksum) and ``model_file`` are the formats.
``protobuf``, ``pickles`` and ``text_files`` read messages, pickles, lists and tables of other programs, ``checksum``
hashes a file, ``growing_array`` writes a .npy file row by row.
"""
