"""Local features in the files of other programs: the official DELF code, hloc, COLMAP and NumPy."""
