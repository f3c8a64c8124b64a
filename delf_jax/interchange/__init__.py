"""Local features in the files of other programs.

``delf_files`` and ``datum`` are those of the official DELF code, ``hloc`` and ``colmap`` those of these programs.
``arrays`` writes NumPy files, ``pairs`` lists of matched photos.
"""
