"""How good retrieval is on photos with ground truth.

``datasets`` reads public benchmarks (``roxford`` those of Easy, Medium and Hard), ``rank_all`` ranks their photos,
``evaluation`` applies the ``metrics``.
"""
