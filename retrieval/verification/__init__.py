"""Geometric proof of a match: from two photos' features to a transform and its number of false alarms.

``matching`` pairs descriptors, ``ransac`` finds transforms out of ``hypotheses``, ``confidence`` says how sure they
are, ``verify`` does all of it for one query and many photos.
"""
