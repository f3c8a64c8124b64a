"""The training photos that the user names: class folders, a CSV list, unlabelled photos, or a prepared data set."""

from collections.abc import Sequence

from delf_jax.errors import TrainingDataError
from delf_jax.training.landmark_lists import from_csv
from delf_jax.training.records import is_records, open_records
from delf_jax.training.samples import LabelledPhotos, Samples, from_folders, split, unlabelled


def open_sets(
    paths: Sequence[str], *, labels: str = "folders", positives: str = "landmark", validation: float = 0.0
) -> tuple[Samples, Samples | None]:
    """The photos to train on, and those kept aside for validation.

    Args:
        paths: one folder of photos or of a prepared data set; with ``labels="none"`` any files, folders or globs.
        labels: see `photo_files`. A prepared data set has its own labels: give ``folders``, or the name of the feature.
        positives: see `photo_files`.
        validation: share kept aside, chosen by the photos' names; 0 for none. A prepared data set's split
            ``validation`` is used unchanged. Unlabelled photos have no validation: no other photo shows the class.

    Raises:
        TrainingDataError: no photos, a faulty list, or a prepared data set without such labels or splits.
    """
    if len(paths) == 1 and is_records(paths[0]):
        if positives != "landmark":
            raise TrainingDataError(f"{paths[0]}: positives {positives} needs a CSV list; prepared photos have classes")
        return open_records(paths[0], label=None if labels == "folders" else labels, validation=validation)
    photos = photo_files(paths, labels=labels, positives=positives)
    if not validation or labels == "none":
        return photos, None
    training, held_out = split(photos, validation=validation)
    if not len(training) or not len(held_out):
        raise TrainingDataError(f"{len(photos)} photos are too few to keep {validation:g} of them aside; name more")
    return training, held_out


def photo_files(paths: Sequence[str], *, labels: str = "folders", positives: str = "landmark") -> LabelledPhotos:
    """Photo files with their labels.

    Args:
        paths: one folder, or with ``labels="none"`` any files, folders or globs.
        labels: ``folders`` (``CLASS/photo.jpg``), ``none`` (each photo is its own class), or the path of a CSV list.
        positives: what makes photos of a list one class, ``landmark`` or ``radius:METRES``.

    Raises:
        TrainingDataError: no photos, or a faulty list.
    """
    if positives != "landmark" and labels in ("folders", "none"):
        raise TrainingDataError(f"positives {positives} needs a CSV list with places; name one with --labels")
    if labels == "none":
        return unlabelled(paths)
    if len(paths) != 1:
        raise TrainingDataError(f"{len(paths)} places are named; name the one folder that holds all labelled photos")
    if labels == "folders":
        return from_folders(paths[0])
    return from_csv(labels, paths[0], positives=positives)
