"""Measures localization (``evaluation``) on ``datasets`` with true boxes and ``true_masks``, by the ``protocols`` and
``metrics`` of weakly supervised object localization. ``layouts`` reads annotations, ``frames`` turns them upright.
"""
