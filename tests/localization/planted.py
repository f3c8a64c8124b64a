"""Feature maps with a planted object, for tests without a network."""

import numpy as np

CHANNELS = 32


def planted(
    seed: int, *, label: int = 0, cells: tuple[int, int] = (8, 10)
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """A map [h, w, C] with one object of long features of its class; and its cells (top, left, bottom, right)."""
    rng = np.random.default_rng(seed)
    h, w = cells
    dense = np.abs(rng.normal(size=(h, w, CHANNELS))).astype(np.float32)
    dense[..., :16] *= 0.2
    top, left = rng.integers(0, h - 4), rng.integers(0, w - 5)
    bottom, right = top + rng.integers(3, 5), left + rng.integers(3, 6)
    dense[top:bottom, left:right, :8] += 3.0
    dense[top:bottom, left:right, 8 + label] += 4.0
    return dense, (int(top), int(left), int(bottom), int(right))


PLANTED = {f"photo{seed}.npy": planted(seed, label=seed % 3) for seed in range(12)}
MAPS = {name: dense for name, (dense, _) in PLANTED.items()}
LABELS = {name: f"class{seed % 3}" for seed, name in enumerate(MAPS)}
