"""From photos to a predictor: ``fit`` computes it in one pass, ``distributed`` on several processes or a Ray cluster,
``calibration`` sets the score above which something counts as found.
"""
