"""A projection of descriptors that verified matches teach: what changes between two views of a place counts less.

``correspondences`` finds the features of two photos that see the same spot, ``whitening`` solves for the projection.
"""
