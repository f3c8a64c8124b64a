"""The official localization (Song et al., ICCV 2023) in PyTorch on the CPU, from the same feature maps.

Fit: mean feature, mean unit feature, and their normalised difference. Map: cosine, clamp, min-max, and bilinear
upsampling with aligned corners.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from benchmarks.errors import Unavailable
from benchmarks.timing import spread, take_turns
from localization.foreground import closed_form
from localization.foreground.statistics import Statistics, position_sums
from localization.grid import aligned_corners
from localization.maps.activation import activation_map, upsample

Map = Float[np.ndarray, "h w c"]


def compare(maps: list[Map], sizes: list[tuple[int, int]], *, rounds: int) -> list[dict[str, Any]]:
    """Two rows, fit and map: milliseconds per photo of PyTorch and of this project, and how much the results differ.

    Args:
        maps: feature maps, float32 [h, w, C].
        sizes: (height, width) in pixels that each is upsampled to.

    Raises:
        Unavailable: PyTorch is not installed.
    """
    try:
        import torch  # optional: a peer
    except ImportError as error:
        raise Unavailable("PyTorch is not installed; pip install delf-jax[peers]") from error

    def torch_sums(dense: Map) -> tuple[Any, Any]:
        rows = torch.from_numpy(dense).flatten(0, 1)
        return rows.sum(0), torch.nn.functional.normalize(rows, dim=1, eps=1e-12).sum(0)

    def our_sums(dense: Map) -> Any:
        return jax.device_get(position_sums(dense, np.ones(dense.shape[:2], bool)))

    statistics = Statistics.of_photo(maps[0])
    for dense in maps[1:]:
        statistics = statistics + Statistics.of_photo(dense)
    sums = [torch_sums(dense) for dense in maps]
    v, u = (sum(part[i].double() for part in sums) / statistics.total.count for i in (0, 1))
    direction = torch.nn.functional.normalize(v - v.norm() / u.norm() * u, dim=0).float()
    w = closed_form.solve(statistics).w.astype(np.float32)

    def torch_map(case: tuple[Map, tuple[int, int]]) -> Any:
        dense, size = case
        cosines = torch.nn.functional.normalize(torch.from_numpy(dense), dim=2, eps=1e-12) @ direction
        clamped = cosines.clamp(min=0)
        scaled = (clamped - clamped.min()) / (clamped.max() - clamped.min())
        return torch.nn.functional.interpolate(scaled[None, None], size, mode="bilinear", align_corners=True)[0, 0]

    def our_map(case: tuple[Map, tuple[int, int]]) -> Any:
        return jax.device_get(_map(case[0], w, size=case[1]))

    cases = list(zip(maps, sizes))
    apart = max(float(np.abs(torch_map(case).numpy() - our_map(case)).max()) for case in cases)
    cosine = float(direction.numpy().astype(np.float64) @ closed_form.solve(statistics).w)
    fit = take_turns({"ours": our_sums, "official": torch_sums}, maps, rounds=rounds)
    located = take_turns({"ours": our_map, "official": torch_map}, cases, rounds=rounds)
    return [
        _row("fit: sums of a photo", fit, {"w_cosine": cosine}),
        _row("map of a photo", located, {"map_difference": apart}),
    ]


def _row(what: str, seconds: dict[str, Float[np.ndarray, " n"]], agreement: dict[str, float]) -> dict[str, Any]:
    ours, official = spread(1000 * seconds["ours"]), spread(1000 * seconds["official"])
    return {
        "part": "official computation",
        "what": what,
        "ms": ours.median,
        "ms_quartiles": ours[1:],
        "torch_ms": official.median,
        "torch_ms_quartiles": official[1:],
        **agreement,
    }


def _compute_map(dense: Any, w: Any, *, size: tuple[int, int]) -> Any:
    cells = np.array(dense.shape[:2])
    grid = aligned_corners(cells, np.array(size))
    return upsample(activation_map(dense, w, cells).activation, cells, grid, np.array(size), size)


_map = jax.jit(_compute_map, static_argnames="size")
