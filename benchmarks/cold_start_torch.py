"""What ``delf-jax`` does in one process, as a plain PyTorch script would do it with the same network; imports no JAX.

    python cold_start_torch.py features PHOTO
    python cold_start_torch.py match PHOTO PHOTO
    python cold_start_torch.py extract FOLDER PHOTO ...
    python cold_start_torch.py search FOLDER PHOTO

``search`` asks the features that ``extract`` has written to the folder. Every level of the pyramid is a pass of its
own, and keypoints are centres of cells.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional

_WEIGHTS = Path(__file__).resolve().parent.parent / "delf_jax" / "weights"
_UNITS = {"conv2": 3, "conv3": 4, "conv4": 6}
_SCALES = (0.5, 0.7071, 1.0, 1.4142, 2.0)
_MEAN = (123.68, 116.779, 103.939)
_NORM_EPSILON = 1e-3
_FEATURES = 1000
_NEIGHBOURS = 60
_PIXELS = 20.0

Features = Mapping[str, np.ndarray]


class Extractor:
    """The packaged model: ResNet-50 up to conv4, learned attention, whitened descriptors of 128 dimensions."""

    def __init__(self) -> None:
        tensors = load_file(_WEIGHTS / "resnet50_imagenet.safetensors")
        names = [name.removesuffix(".kernel") for name in tensors if name.endswith(".kernel")]
        self._folded = {name: _folded(tensors, name) for name in names if not name.startswith("conv5")}
        self._head = load_file(_WEIGHTS / "delf-r50.safetensors")

    @torch.inference_mode()
    def __call__(self, photo: str) -> Features:
        """Keypoints [n, 2] and descriptors [n, 128] of a photo, strongest first."""
        pixels = np.array(Image.open(photo).convert("RGB"))
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() - torch.tensor(_MEAN)[:, None, None]
        levels = [self._level(image, scale) for scale in _SCALES]
        scores, keypoints, features = (torch.cat(parts) for parts in zip(*levels))
        best = scores.topk(min(_FEATURES, len(scores))).indices
        head = self._head
        centred = functional.normalize(features[best], dim=1) - head["pca_mean"]
        descriptors = functional.normalize(centred @ head["pca_basis"].T / head["pca_variance"].sqrt(), dim=1)
        return {"keypoints": keypoints[best].numpy(), "descriptors": descriptors.numpy()}

    def _level(self, image: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        size = [round(side * scale) for side in image.shape[2:]]
        if scale != 1:
            image = functional.interpolate(image, size, mode="bilinear", antialias=scale < 1)
        dense = self._conv4(image.contiguous(memory_format=torch.channels_last))[0]
        strength = dense.norm(dim=0)
        down = functional.max_pool2d(strength[None], (3, 1), 1, (1, 0))[0]
        across = functional.max_pool2d(strength[None], (1, 3), 1, (0, 1))[0]
        is_peak = (strength >= down) & (strength >= across)
        is_peak[:2], is_peak[-2:], is_peak[:, :2], is_peak[:, -2:] = False, False, False, False
        features = dense.permute(1, 2, 0)[is_peak]
        hidden = functional.relu(features @ self._head["attention.hidden_kernel"] + self._head["attention.hidden_bias"])
        scores = functional.softplus(hidden @ self._head["attention.kernel"] + self._head["attention.bias"])
        return scores, is_peak.nonzero().flip(1) * (16.0 / scale), features

    def _conv4(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(functional.relu(self._convolution(x, "conv1", 2, 3)), 3, 2, 1)
        for stage, units in _UNITS.items():
            for unit in range(1, units + 1):
                name, stride = f"{stage}.unit{unit}", 2 if unit == 1 and stage != "conv2" else 1
                y = functional.relu(self._convolution(x, f"{name}.reduce", stride))
                y = functional.relu(self._convolution(y, f"{name}.spatial", padding=1))
                shortcut = self._convolution(x, f"{name}.shortcut", stride) if unit == 1 else x
                x = functional.relu(self._convolution(y, f"{name}.expand") + shortcut)
        return x

    def _convolution(self, x: torch.Tensor, name: str, stride: int = 1, padding: int = 0) -> torch.Tensor:
        return functional.conv2d(x, *self._folded[name], stride, padding)


def _folded(tensors: Mapping[str, torch.Tensor], name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Kernel [out, in, h, w] and bias of a convolution with its batch norm."""
    norm = {part: tensors[f"{name}.norm.{part}"] for part in ("mean", "scale", "shift", "variance")}
    factor = norm["scale"] / (norm["variance"] + _NORM_EPSILON).sqrt()
    kernel = tensors[f"{name}.kernel"].float().permute(3, 2, 0, 1) * factor[:, None, None, None]
    bias = (tensors[f"{name}.bias"] - norm["mean"]) * factor + norm["shift"]
    return kernel.contiguous(memory_format=torch.channels_last), bias


def match(a: Features, b: Features) -> int:
    """Inliers of the best affine transform between the mutual nearest neighbours of two photos."""
    cosines = a["descriptors"] @ b["descriptors"].T
    nearest = cosines.argmax(axis=1)
    rows = np.flatnonzero(cosines.argmax(axis=0)[nearest] == np.arange(len(nearest)))
    return inliers(a["keypoints"][rows], b["keypoints"][nearest[rows]])


def inliers(a: np.ndarray, b: np.ndarray) -> int:
    """How many of the matched points [n, 2] agree with the best affine transform."""
    if len(a) < 3:
        return 0
    _, found = cv2.estimateAffine2D(a, b, method=cv2.RANSAC, ransacReprojThreshold=_PIXELS)
    return 0 if found is None else int(found.sum())


def search(query: Features, folder: Path) -> str:
    """The photo of the folder with the most inliers, among the hundred with the most votes."""
    photos = {path.stem: dict(np.load(path, allow_pickle=False)) for path in sorted(folder.iterdir())}
    owner = np.repeat(np.arange(len(photos)), [len(one["keypoints"]) for one in photos.values()])
    cosines = query["descriptors"] @ np.concatenate([one["descriptors"] for one in photos.values()]).T
    neighbours = np.argpartition(-cosines, min(_NEIGHBOURS, cosines.shape[1] - 1), axis=1)[:, :_NEIGHBOURS]
    votes = np.bincount(owner[neighbours].ravel(), minlength=len(photos))
    chosen = [list(photos)[row] for row in np.argsort(-votes)[:100]]
    return max(chosen, key=lambda name: match(query, photos[name]))


def main(job: str, *arguments: str) -> None:
    """Does one job and prints its answer."""
    extract = Extractor()
    if job == "features":
        print(len(extract(arguments[0])["keypoints"]))
    elif job == "match":
        print(match(*map(extract, arguments)))
    elif job == "search":
        print(search(extract(arguments[1]), Path(arguments[0])))
    else:
        for photo in arguments[1:]:
            np.savez(Path(arguments[0], Path(photo).stem), **extract(photo))


if __name__ == "__main__":
    main(*sys.argv[1:])
