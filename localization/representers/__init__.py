"""Representer points, the training positions that explain why a place is foreground: ``values`` has the formulas,
``points`` stores them, ``explain`` ranks them for a query, ``mips`` searches very many of them, ``fitted_photos`` lists
the training photos.
"""
