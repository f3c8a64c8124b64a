"""From nearest neighbours to votes for photos."""

import numpy as np
from jaxtyping import Float, Int


def votes(
    photos: Int[np.ndarray, "q k"], similarities: Float[np.ndarray, "q k"], *, photo_count: int
) -> Float[np.ndarray, " p"]:
    """Votes for every photo; -inf for photos that own none of the neighbours.

    ``photos`` [q, k] says which photo owns each neighbour of each query descriptor, -1 for none; ``similarities``
    [q, k] are dot products in descending order. Descriptor i sees photo p by its best neighbour there, with the margin

        u_ip = max_{j of p} s_ij - s_ik

    over its k-th neighbour, which is what any descriptor of the collection would get. It gives the photo

        v_ip = u_ip^2 / sum_p' u_ip'

    that is, the margin times the photo's share in the descriptor's margins. So a descriptor votes once a photo however
    often a pattern repeats there, its votes sum to at most its best margin, and one that is equally near to many photos
    gives each of them next to nothing.
    """
    found = photos >= 0
    furthest = np.min(np.where(found, similarities, np.inf), axis=1, keepdims=True, initial=np.inf)
    queries = np.broadcast_to(np.arange(len(photos))[:, None], photos.shape)[found]
    # The first of equal (query, photo) pairs is the best neighbour: rows are sorted.
    pair, first = np.unique(queries * photo_count + photos[found], return_index=True)
    margins = np.broadcast_to(similarities - furthest, photos.shape)[found][first].astype(np.float64)
    query, photo = np.divmod(pair, photo_count)
    totals = np.bincount(query, weights=margins, minlength=len(photos))
    cast = margins**2 / np.maximum(totals[query], 1e-12)
    scores = np.bincount(photo, weights=cast, minlength=photo_count)
    seen = np.bincount(photo, minlength=photo_count) > 0
    return np.where(seen, scores, -np.inf).astype(np.float32)


def ranking(scores: Float[np.ndarray, " p"]) -> Int[np.ndarray, " r"]:
    """Places of the photos with votes, most votes first, the earlier of equal ones first."""
    return np.argsort(-scores, kind="stable")[: np.isfinite(scores).sum()]
