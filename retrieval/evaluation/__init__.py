"""How good retrieval is on photos with ground truth.

``datasets`` reads public benchmarks, ``rank_all`` ranks their photos, ``evaluation`` applies the ``metrics``.
"""
