"""Geometric verification: from the features of two photos to a transform and its number of false alarms.

``matching`` pairs descriptors, ``ransac`` fits transforms to the pairs, ``confidence`` says how sure they are, and
``verify`` does all of it for one query and many photos.
"""
