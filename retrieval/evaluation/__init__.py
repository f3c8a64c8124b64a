"""How good retrieval is where the truth is known: ``datasets`` reads, ``rank_all`` ranks, ``metrics`` judges."""
