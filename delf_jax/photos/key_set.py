"""``KeySet``: a set of 64-bit keys that takes eight bytes for each, so that millions of photos fit in memory."""

import numpy as np

# Merging copies all keys. It waits until new keys are this share of them, so the total copied grows with their number.
WAITING_SHARE = 1 / 64


class KeySet:
    """The keys that were added so far: a sorted array, and a small set that is merged into it from time to time."""

    def __init__(self, *, merge_at: int = 1 << 13) -> None:
        self._sorted = np.empty(0, np.uint64)
        self._recent: set[int] = set()
        self._merge_at = merge_at

    def add(self, key: int) -> bool:
        """Adds a key from 0 to 2^64 - 1; returns False if it was added before."""
        place = int(np.searchsorted(self._sorted, np.uint64(key)))
        if key in self._recent or (place < len(self._sorted) and int(self._sorted[place]) == key):
            return False
        self._recent.add(key)
        if len(self._recent) >= max(self._merge_at, WAITING_SHARE * len(self._sorted)):
            recent = np.sort(np.fromiter(self._recent, np.uint64, len(self._recent)))
            self._sorted = np.insert(self._sorted, np.searchsorted(self._sorted, recent), recent)
            self._recent = set()
        return True
