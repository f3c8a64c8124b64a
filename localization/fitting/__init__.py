"""From photos to a predictor: ``fit`` computes it in one pass, ``distributed`` on several processes or a Ray cluster,
``found_threshold`` sets the score above which something counts as found.
"""
