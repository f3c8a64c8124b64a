"""Do photos match only because they carry the same overlay? Do true pairs still match under it?

    python -m benchmarks.overlays --json benchmarks/results/overlays.json

Frames of programs, watermarks, captions, time stamps and calibration borders (``overlay_drawings``) are laid over
packaged photos and over those of the data folder. Every pair is verified as ``retrieval.match`` does. ``unrelated`` are
all pairs of photos that show different things; all other kinds are true pairs: two photos of one building, and copies
of a photo that were cut, reduced or changed before the overlay was laid over both, or over one of them.
"""

import dataclasses
import functools
import hashlib
import io
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from PIL import Image, ImageEnhance

import delf_jax
from benchmarks import datasets, results_file
from benchmarks.command_line import run
from benchmarks.feature_cache import cached_by_key
from benchmarks.overlay_drawings import OVERLAYS
from delf_cli.environment import start_jax
from delf_jax.features import LocalFeatures
from retrieval.verification.verify import Match, match

PACKAGED = Path(delf_jax.__file__).parent.parent / "delf_cli" / "demo" / "photos"
PACKAGED_NAMES = ("leuvenA", "building", "coffee")
# Accepted at this log10_nfa: one false alarm in 100 pairs, if matches were random.
THRESHOLD = -2.0
# Composed photos are reduced to so many pixels.
LONGEST = 640
# Overlays that leave the photo in its place, so that a copy may be without them.
LAID_OVER = ("tiled watermark", "corner watermark", "caption", "time stamp")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measures matches of photos under the same overlay.

    Attributes:
        data: folder of the photos with ground truth (default: $DELF_SHARED).
        part: development is what the rule was chosen with; held-out shares no photo with it.
        cache: folder where features are kept between runs.
        json: file for the results.
    """

    data: Path | None = None
    part: Literal["development", "held-out"] = "held-out"
    cache: Path = Path(".cache/overlays")
    json: Path | None = None


class Composed(NamedTuple):
    """A photo, what was done to it, and the overlay that was laid over it then."""

    photo: Path
    change: str
    overlay: str


class Pair(NamedTuple):
    """Two composed photos; all kinds but ``unrelated`` should match."""

    kind: str
    overlay: str
    a: Composed
    b: Composed


def main(options: Options) -> list[dict[str, Any]]:
    """Prints one row for each overlay and kind of pair, and writes them with --json. Returns the rows."""
    rows = counted(found_of(pairs_of(datasets.data_folder(options.data), options.part), options.cache))
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    if options.json is not None:
        results_file.write(options.json, "overlays", rows, {"part": options.part, "threshold": THRESHOLD})
    return rows


def pairs_of(data: Path, part: str) -> list[Pair]:
    """All pairs of a part; without an overlay too."""
    held_out = part == "held-out"
    landmarks = {path.parent.name: path for path in datasets.landmark_distractors(data)}
    # Places near each other are left out.
    apart = [path for name, path in sorted(landmarks.items()) if name not in _ONE_SITE]
    others = datasets.other_things(data)
    if held_out:
        strangers = [*(PACKAGED / f"{name}.jpg" for name in PACKAGED_NAMES), *others[5::43], *apart[:2]]
    else:
        strangers = [*others[::32], *apart[-3:]]
    copied = strangers[:1]
    found: list[Pair] = []
    for overlay in ("none", *OVERLAYS):
        plain = [Composed(photo, "none", overlay) for photo in strangers]
        found += [Pair("unrelated", overlay, a, b) for a, b in itertools.combinations(plain, 2)]
        found += [
            Pair("one building", overlay, *(Composed(photo, "none", overlay) for photo in pair))
            for pair in _buildings(data)[held_out::8][:3]
        ]
        for photo in copied:
            original = Composed(photo, "none", overlay)
            found += [Pair(change, overlay, original, Composed(photo, change, overlay)) for change in CHANGES]
            if overlay in LAID_OVER:
                found.append(Pair("copy without it", overlay, original, Composed(photo, "recompressed", "none")))
    return found


_ONE_SITE = ("qutub_minar", "iron_pillar", "alai_darwaza", "jamali_kamali_tomb")


def _buildings(data: Path) -> list[tuple[Path, Path]]:
    queries = sorted((data / "smvs_landmarks/Query").iterdir())
    return [(query, data / "smvs_landmarks/Reference" / query.name) for query in queries]


def _recompressed(photo: Image.Image) -> Image.Image:
    file = io.BytesIO()
    ImageEnhance.Brightness(photo).enhance(1.15).save(file, "JPEG", quality=40)
    return Image.open(file)


def _cut(photo: Image.Image, x0: float, y0: float, x1: float, y1: float) -> Image.Image:
    width, height = photo.size
    return photo.crop((round(x0 * width), round(y0 * height), round(x1 * width), round(y1 * height)))


CHANGES = {
    "recompressed": _recompressed,
    "half size": lambda photo: photo.reduce(2),
    "cut on all sides": lambda photo: _cut(photo, 0.12, 0.18, 0.85, 0.9),
    "cut at the right and below": lambda photo: _cut(photo, 0, 0, 0.75, 0.75),
}


@functools.cache
def photo_file(composed: Composed) -> bytes:
    """The composed photo as a JPEG file."""
    photo = Image.open(composed.photo).convert("RGB")
    if composed.change != "none":
        photo = CHANGES[composed.change](photo).convert("RGB")
    if composed.overlay != "none":
        photo = OVERLAYS[composed.overlay](photo)
    photo.thumbnail((LONGEST, LONGEST))
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=90)
    return file.getvalue()


def found_of(pairs: Sequence[Pair], cache: Path) -> Iterator[tuple[Pair, Match]]:
    """The match of every pair."""
    composed = sorted({photo for pair in pairs for photo in (pair.a, pair.b)})
    features = dict(zip(composed, features_of(composed, cache), strict=True))
    for pair in pairs:
        yield pair, match(features[pair.a], features[pair.b], threshold=THRESHOLD)


def features_of(composed: Sequence[Composed], cache: Path) -> list[LocalFeatures]:
    """Features at the default settings."""
    extractor = _extractor()
    keys = [hashlib.sha256(photo_file(one)).hexdigest()[:24] for one in composed]
    description = {"fingerprint": extractor.fingerprint, **extractor.settings.to_json()}
    return cached_by_key(
        lambda rows: extractor([photo_file(composed[row]) for row in rows]),
        keys,
        description=description,
        folder=cache,
        batch=16,
    )


@functools.cache
def _extractor() -> delf_jax.Extractor:
    return delf_jax.load()


def counted(found: Iterator[tuple[Pair, Match]]) -> list[dict[str, Any]]:
    """For each overlay and kind: pairs, those accepted by all matches, and those accepted without the overlay's."""
    groups: dict[tuple[str, str], list[Match]] = defaultdict(list)
    for pair, one in found:
        groups[pair.overlay, pair.kind].append(one)
    return [
        {
            "overlay": overlay,
            "kind": kind,
            "pairs": len(matches),
            # A match is only asked for an overlay if all of its matches together would be accepted.
            "accepted_by_all_matches": sum(one.accepted or one.overlay > 0 for one in matches),
            "with_overlay": sum(one.overlay > 0 for one in matches),
            "accepted": sum(one.accepted for one in matches),
            "surest": round(min(one.log10_nfa for one in matches if one.log10_nfa is not None), 1),
        }
        for (overlay, kind), matches in groups.items()
    ]


if __name__ == "__main__":
    start_jax()
    run(main, Options, __doc__)
