"""The pure program from pixels to features, step by step.

``pyramid`` resizes, ``attention`` scores, ``keypoints`` chooses, ``descriptors`` describes; ``head`` and ``pca`` are
the trained parts beside the network.
"""
