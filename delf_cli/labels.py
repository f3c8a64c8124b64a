"""The classes of photos for ``--labels``: from folders, from a CSV file, or by clustering."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from delf_cli.options import UsageError

if TYPE_CHECKING:
    import localization.encoders.base

_CLUSTER = "cluster:"


def check(rule: str, *, clusters: bool = True) -> None:
    """Raises UsageError if ``of_photos`` does not know this rule, or only by ``clusters``."""
    if rule in ("none", "folders"):
        return
    if clusters and rule.startswith(_CLUSTER):
        if not rule.removeprefix(_CLUSTER).isdecimal() or _clusters(rule) < 2:
            raise UsageError(f"--labels is {rule!r}; give the number of clusters, at least 2, for example cluster:5")
    elif not os.path.isfile(rule):
        others = ", cluster:NUMBER," if clusters else ""
        raise UsageError(f"--labels is {rule!r}; give folders{others} or a CSV file with columns file,label")


def of_photos(
    rule: str, paths: Sequence[str], photos: Iterable[str], encoder: "localization.encoders.base.Encoder"
) -> Mapping[str, str] | None:
    """The class of each photo, by its path; None for the rule ``none``. Photos without a class are left out.

    Args:
        rule: ``none``, ``folders`` (the name of the photo's folder), ``cluster:NUMBER``, or the path of a CSV file.
        paths: paths of the photos.
        photos: the same paths, for clustering, which computes the features of each photo.
        encoder: computes these features.

    Raises:
        UsageError: no photo has a class, or one has two.
        FileFormatError: the CSV file cannot be read, or lacks a column.
        PredictorError: there are fewer photos than clusters.
    """
    if rule == "none":
        return None
    if rule.startswith(_CLUSTER):
        from localization.foreground import classes

        # Unreadable photos are reported later, when they are fitted.
        means = classes.mean_features(photos, encoder=encoder, on_error=lambda error: None)
        return classes.cluster(means, _clusters(rule))
    return given(rule, paths)


def given(rule: str, paths: Sequence[str]) -> Mapping[str, str]:
    """As ``of_photos``, by folders or a CSV file."""
    if rule == "folders":
        return {path: os.path.basename(os.path.dirname(path)) for path in paths}
    known = _read(rule)
    labels = {path: known[path] for path in paths if path in known}
    if not labels:
        raise UsageError(
            f"{rule}: it has no label for any of the photos; its paths are relative to the folder of the CSV file"
        )
    return labels


def _clusters(rule: str) -> int:
    return int(rule.removeprefix(_CLUSTER))


def _read(file: str) -> dict[str, str]:
    from delf_jax.files.text_files import read_table

    folder = os.path.dirname(os.path.abspath(file))
    labels: dict[str, str] = {}
    for line, row in read_table(file, ("file", "label")):
        name, label = row["file"], row["label"]
        if name and label:
            path = name if "://" in name else os.path.normpath(os.path.join(folder, name))
            if labels.setdefault(path, label) != label:
                raise UsageError(f"{file}: line {line}, column label: {name} has another label before; give it one")
    return labels
