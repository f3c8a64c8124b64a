"""Programs of verification that are compiled while features are still computed."""

import contextlib
import logging
import threading
from collections.abc import Iterator

import numpy as np
from numpy.typing import DTypeLike

from delf_jax.features import LocalFeatures
from retrieval.verification.transforms import Model
from retrieval.verification.verify import VerificationSettings, verify_candidates

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def prepared(
    candidates: int, *, features: int, dimension: int, dtype: DTypeLike = np.float32, model: Model = "affine"
) -> Iterator[threading.Thread]:
    """Compiles in the background what verifying so many candidates needs; the block ends when that is done.

    It verifies photos without content, of so many ``features`` each, so the programs are those that real photos use.
    Photos with fewer features, or with more than ``verify.MATCHES`` putative matches, may need others. An interrupt
    does not wait for the thread. An error is logged: verification itself will raise it.

    Args:
        candidates: number of photos that will be verified for a query.
        features: of the query and of each photo.
        dimension: of the descriptors.
        dtype: of the descriptors of the candidates.
        model: kind of transform.

    Yields:
        The thread; join it before the first photo is verified in the block.
    """
    photo, query = (
        LocalFeatures(
            keypoints=np.zeros((features, 2), np.float32),
            scales=np.ones(features, np.float32),
            scores=np.ones(features, np.float32),
            descriptors=np.zeros((features, dimension), kind),
            image_size=(1, 1),
        )
        for kind in (dtype, np.float32)
    )

    def verify() -> None:
        try:
            verify_candidates(query, [("", 0.0, photo)] * candidates, VerificationSettings(model=model))
        except Exception:
            _log.warning("verification cannot be compiled ahead", exc_info=True)

    thread = threading.Thread(target=verify, name="compile verification", daemon=True)
    thread.start()
    try:
        yield thread
    except Exception:
        thread.join()
        raise
    thread.join()
