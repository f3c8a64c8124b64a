"""From padded photos to local features, as pure functions of arrays: ``program`` is the whole.

Its steps: ``pyramid`` resizes, ``attention`` scores, ``texture`` leaves out flat areas, ``keypoints`` selects,
``descriptors`` describes. ``head`` and ``pca`` are what is trained on top of the backbone.
"""
