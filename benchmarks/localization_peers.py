"""Boxes of other methods that train nothing, from the same feature maps: LOST, TokenCut, DDT, SCDA.

Each is written from its paper; what a ResNet needs instead of a transformer is said in its docstring. A map of features
is float32 [h, w, C]; boxes are edges [x0, y0, x1, y1] in pixels of a photo of ``size`` (height, width), whose equal
patches the cells of LOST and TokenCut are.
"""

from collections.abc import Iterable

import numpy as np
import scipy.linalg
import scipy.ndimage
from jaxtyping import Bool, Float

Dense = Float[np.ndarray, "h w c"]
Edges = tuple[float, float, float, float]

_LOST_PATCHES = 100
_TOKENCUT_SIMILAR = 0.2
_TOKENCUT_WEAK = 1e-5


def lost_box(dense: Dense, size: tuple[int, int]) -> Edges:
    """LOST (Simeoni et al., BMVC 2021): the seed is the cell with the fewest positive products with others.

    Features of a ResNet are positive, so that they are standardised over the photo first, as the authors do.
    """
    features = standardised(dense)
    products = features @ features.T
    off_diagonal = products - np.diag(np.diag(products))
    order = np.argsort((off_diagonal > 0).sum(axis=1), kind="stable")
    seed, candidates = order[0], order[:_LOST_PATCHES]
    expanded = candidates[products[seed, candidates] > 0]
    correlation = products[expanded].sum(axis=0).reshape(dense.shape[:2])
    return box_around(correlation > 0, seed, size)


def tokencut_box(dense: Dense, size: tuple[int, int], *, similar: float = _TOKENCUT_SIMILAR) -> Edges:
    """TokenCut (Wang et al., CVPR 2022): the second eigenvector of the normalised cut splits the cells in two.

    Features are standardised over the photo first, as for LOST: without this all cosines of a ResNet are above
    ``similar``.
    """
    features = standardised(dense)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    weights = np.where(features @ features.T > similar, 1.0, _TOKENCUT_WEAK)
    degrees = np.diag(weights.sum(axis=1))
    _, vectors = scipy.linalg.eigh(degrees - weights, degrees, subset_by_index=[1, 1])
    second = vectors[:, 0]
    seed = int(np.abs(second).argmax())
    part = second > second.mean()
    return box_around((part if part[seed] else ~part).reshape(dense.shape[:2]), seed, size)


class Ddt:
    """DDT (Wei et al., Pattern Recognition 2019): projection on the first principal component of all features."""

    def __init__(self, maps: Iterable[Dense]) -> None:
        count, total, products = 0, np.zeros(1), np.zeros((1, 1))
        for dense in maps:
            cells = dense.reshape(-1, dense.shape[-1]).astype(np.float64)
            count, total, products = count + len(cells), total + cells.sum(axis=0), products + cells.T @ cells
        self.mean = total / count
        covariance = products / count - np.outer(self.mean, self.mean)
        last = len(covariance) - 1
        self.component = scipy.linalg.eigh(covariance, subset_by_index=[last, last])[1][:, 0]
        if self.component @ self.mean < 0:  # an eigenvector has no sign; objects have long features
            self.component = -self.component

    def map(self, dense: Dense) -> Float[np.ndarray, "h w"]:
        """The projection of every cell; positive is object."""
        return np.asarray((dense - self.mean) @ self.component, np.float32)


def standardised(dense: Dense) -> Float[np.ndarray, "n c"]:
    """The cells [h * w, C] with mean 0 and variance 1 over all numbers of the photo."""
    cells = dense.reshape(-1, dense.shape[-1])
    return (cells - cells.mean()) / max(float(cells.std()), 1e-12)


def box_around(cells: Bool[np.ndarray, "h w"], seed: int, size: tuple[int, int]) -> Edges:
    """The box of the connected cells that hold the seed, or of the seed alone if it is not among them."""
    labels, _ = scipy.ndimage.label(cells)
    row, column = np.unravel_index(seed, cells.shape)
    same = labels == labels[row, column] if cells[row, column] else np.zeros_like(cells)
    same[row, column] = True
    rows, columns = np.flatnonzero(same.any(axis=1)), np.flatnonzero(same.any(axis=0))
    step_y, step_x = size[0] / cells.shape[0], size[1] / cells.shape[1]
    return columns[0] * step_x, rows[0] * step_y, (columns[-1] + 1) * step_x, (rows[-1] + 1) * step_y
