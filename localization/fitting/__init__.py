"""From photos to a predictor: ``fit``, ``calibration`` of what counts as found, ``distributed`` fitting."""
