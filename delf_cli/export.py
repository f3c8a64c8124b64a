"""`delf-jax export`: writes a feature store as files of other programs."""

import dataclasses
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from delf_cli.options import UsageError
from delf_cli.report import Advance, Report
from delf_jax.files.file_names import fitting

if TYPE_CHECKING:
    from delf_jax.features import LocalFeatures
    from delf_jax.interchange.pairs import PairMatches
    from delf_jax.store.reader import FeatureStore

_ONE_FILE_A_PHOTO = {"delf": ".delf", "numpy": ".npz"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Write the features of a store, and matches of pairs of photos, for other programs.

    delf: one .delf file per photo, as the official DELF code writes it. numpy: one .npz file per photo. hloc: a folder
    with features.h5 and, with --pairs or --index, pairs.txt and matches.h5. colmap: a database for COLMAP's mapper.
    It contains cameras and keypoints and, with --pairs or --index, matches and verified two-view geometries.

    Attributes:
        store: feature store, as written by `delf-jax extract`.
        out: folder to write to; for colmap, the database file.
        format: kind of files to write. hloc and colmap need `pip install delf-jax[sfm]`.
        images: folder to which the names of the photos are relative.
        pairs: pairs of photos to match: all, or a file with two names per line.
        index: match each photo with the photos that this index of the same store finds for it.
        top: number of photos that the index finds for each photo.
        max_error: largest distance of a verified match from its epipolar lines, in pixels of the photo as it was
            extracted.
        camera: the one camera that took all photos, as COLMAP's model and its numbers: MODEL,NUMBER,...
        json: print one JSON line with the counts.
    """

    store: Annotated[Positional[str], arg(metavar="STORE")]
    out: Annotated[str, arg(metavar="PATH")]
    format: Literal["delf", "hloc", "colmap", "numpy"]
    images: Annotated[str | None, arg(metavar="DIR", help_behavior_hint="(default: their common folder)")] = None
    pairs: Annotated[str | None, arg(metavar="all|FILE", help_behavior_hint="(default: features only)")] = None
    index: Annotated[str | None, arg(metavar="INDEX", help_behavior_hint="(default: features only)")] = None
    top: int = 20
    max_error: float = 8.0
    camera: Annotated[str | None, arg(metavar="CAMERA", help_behavior_hint="(default: from EXIF data)")] = None
    json: bool = False

    example: ClassVar[str] = "delf-jax export features --format colmap --pairs all --out database.db"

    def run(self, report: Report) -> None:
        """Writes the files; each appears whole or not at all."""
        self._check()
        from delf_cli import environment

        if self._with_matches:
            environment.start_jax()
        from delf_jax.interchange.pairs import relative_names
        from delf_jax.store.reader import FeatureStore

        store = FeatureStore.open(self.store)
        if not len(store):
            raise UsageError(f"{self.store}: contains no photos; extract some first")
        root = None if self.images is None else _absolute(self.images)
        names = relative_names((photo.path for photo in store), root=root)
        with report.progress("exporting", "photos") as advance:
            if self.format in _ONE_FILE_A_PHOTO:
                counts = self._write_each(store, names, report, advance)
            else:
                counts = (self._hloc if self.format == "hloc" else self._colmap)(store, names, advance)
        counts = {"photos": len(names) - report.failed, **counts}
        report.succeeded += 1
        said = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in counts.items())
        report.result({"store": self.store, "format": self.format, "out": self.out, **counts}, f"{self.out}: {said}")

    @property
    def _with_matches(self) -> bool:
        return self.pairs is not None or self.index is not None

    def _check(self) -> None:
        if self.pairs is not None and self.index is not None:
            raise UsageError("--pairs and --index both choose pairs; give one of them")
        if self._with_matches and self.format in _ONE_FILE_A_PHOTO:
            raise UsageError(
                f"--format {self.format} has no matches; use --pairs and --index with --format hloc or colmap"
            )
        if self.camera is not None and self.format != "colmap":
            raise UsageError("--camera is for --format colmap")
        if self.top < 1:
            raise UsageError(f"--top is {self.top}; it must be at least 1")
        if not self.max_error > 0:
            raise UsageError(f"--max-error is {self.max_error}; it must be above 0")
        if self.format == "colmap" and os.path.isdir(self.out):
            raise UsageError(f"{self.out}: is a folder; give the database file, such as {self.out}/database.db")

    def _write_each(
        self, store: "FeatureStore", names: dict[str, str], report: Report, advance: Advance
    ) -> dict[str, int]:
        from delf_jax.interchange import arrays, delf_files

        write = delf_files.write_delf if self.format == "delf" else arrays.write_npz
        files = _file_names(names.values(), _ONE_FILE_A_PHOTO[self.format])
        features = 0
        for done, photo in enumerate(store, start=1):
            name = names[photo.path]
            advance(done, len(names))
            if ".." in PurePosixPath(name).parts:  # in an archive
                report.failure("image", photo.path, f"its name leads out of {self.out}; rename it in its archive")
                continue
            target = Path(self.out) / files[name]
            with report.fails_alone("image", photo.path):
                target.parent.mkdir(parents=True, exist_ok=True)
                write(target, photo.features)
                features += len(photo.features)
        return {"features": features}

    def _hloc(self, store: "FeatureStore", names: dict[str, str], advance: Advance) -> dict[str, int]:
        from delf_jax.files import atomic
        from delf_jax.interchange import hloc

        spaced = next((name for name in names.values() if len(name.split()) > 1), None)
        if self._with_matches and spaced is not None:
            raise UsageError(
                f"{spaced}: names in hloc's lists of pairs must not contain spaces; rename the photo and extract again"
            )
        photos, pairs = self._photos_and_pairs(store, names)
        folder = Path(self.out)
        folder.mkdir(parents=True, exist_ok=True)
        counts = {"features": 0}
        rows = _counted(store, names, counts, advance)
        hloc.write_features(folder / "features.h5", rows, max_side=store.settings.max_side)
        if self._with_matches:
            found = self._matched(photos, pairs, store.settings.max_side, counts, advance)
            hloc.write_matches(folder / "matches.h5", ((pair, len(photos[pair.a])) for pair in found))
            atomic.write_bytes(folder / "pairs.txt", "".join(f"{a} {b}\n" for a, b in pairs).encode())
        return counts

    def _colmap(self, store: "FeatureStore", names: dict[str, str], advance: Advance) -> dict[str, int]:
        from delf_jax.interchange import colmap

        camera = None if self.camera is None else colmap.parse_intrinsics(self.camera)
        photos, pairs = self._photos_and_pairs(store, names)
        paths = {name: path for path, name in names.items()}
        counts = {"features": 0}
        rows = ((name, photo, paths[name]) for name, photo in _counted(store, names, counts, advance))
        found: Iterable[PairMatches] = ()
        if self._with_matches:
            found = self._matched(photos, pairs, store.settings.max_side, counts, advance)
        Path(self.out).parent.mkdir(parents=True, exist_ok=True)
        colmap.write_database(self.out, rows, found, camera=camera)
        return counts

    def _photos_and_pairs(
        self, store: "FeatureStore", names: dict[str, str]
    ) -> "tuple[dict[str, LocalFeatures], list[tuple[str, str]]]":
        """Features by name and the pairs to match; both empty without --pairs and --index."""
        if not self._with_matches:
            return {}, []
        import retrieval
        from delf_jax.interchange.pairs import all_pairs, read_pairs

        if self.pairs is not None and self.pairs != "all":
            pairs = read_pairs(self.pairs, names=names.values())
            return _in_memory(store, names), pairs
        photos = _in_memory(store, names)
        if self.index is None:
            return photos, list(all_pairs(photos))
        by_path = {path: photos[name] for path, name in names.items()}
        found = retrieval.retrieved_pairs(retrieval.open_index(self.index), by_path, top=self.top)
        return photos, [(names[a], names[b]) for a, b in found]

    def _matched(
        self,
        photos: "dict[str, LocalFeatures]",
        pairs: list[tuple[str, str]],
        max_side: int,
        counts: dict[str, int],
        advance: Advance,
    ) -> "Iterator[PairMatches]":
        """Yields the matches of each pair, and counts the verified pairs in ``counts``."""
        import retrieval

        counts |= {"pairs": len(pairs), "verified_pairs": 0}
        found = retrieval.match_pairs(photos, pairs, max_side=max_side, max_error=self.max_error)
        for done, pair in enumerate(found, start=1):
            counts["verified_pairs"] += pair.fundamental is not None
            yield pair
            advance(done, len(pairs))


def _file_names(names: Collection[str], suffix: str) -> dict[str, str]:
    """The file of each photo: its name with this suffix in place of its own, or added to it if two would be equal.

    >>> _file_names(["a/1.jpg", "2.jpg"], ".npz")
    {'a/1.jpg': 'a/1.npz', '2.jpg': '2.npz'}
    """
    replaced: dict[str, str] = {}
    added: dict[str, str] = {}
    for name in names:
        folder, own = os.path.split(name)
        replaced[name] = os.path.join(folder, fitting(os.path.splitext(own)[0], suffix=suffix))
        added[name] = os.path.join(folder, fitting(own, suffix=suffix))
    return replaced if len(set(replaced.values())) == len(replaced) else added


def _counted(
    store: "FeatureStore", names: dict[str, str], counts: dict[str, int], advance: Advance
) -> "Iterator[tuple[str, LocalFeatures]]":
    """Yields the name and the features of each photo, and counts the features in ``counts``."""
    for done, photo in enumerate(store, start=1):
        counts["features"] += len(photo.features)
        yield names[photo.path], photo.features
        advance(done, len(names))


def _in_memory(store: "FeatureStore", names: dict[str, str]) -> "dict[str, LocalFeatures]":
    """The features of every photo by name. Descriptors are float16, as in the store, to save memory."""
    import numpy as np

    return {
        names[photo.path]: dataclasses.replace(
            photo.features, descriptors=photo.features.descriptors.astype(np.float16)
        )
        for photo in store
    }


def _absolute(folder: str) -> str:
    return folder if "://" in folder else os.path.abspath(folder)
