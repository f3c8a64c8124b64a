"""Groups of photos that show the same thing, each with its proof.

``examining`` verifies the likely pairs of a collection, ``copies`` tells copies from other views, ``graph`` cuts the
accepted pairs into groups, ``labels`` compares groups with names, and ``measures`` says how good they are.
"""
