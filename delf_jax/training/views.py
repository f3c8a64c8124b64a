"""The views of a photo that the settings ask for."""

from delf_jax.training.augmentation import AreaCrop, Augmentation, SquareCrop, Warp, Whole
from delf_jax.training.settings import TrainingSettings


def random_view(settings: TrainingSettings, side: int) -> Augmentation:
    """A random crop or warp of ``side`` pixels."""
    if settings.augmentation == "square":
        return SquareCrop(max(settings.resize, side), side)
    if settings.augmentation == "warp":
        return Warp(side, area=(settings.area, max(settings.area, 0.9)))
    return AreaCrop(side, area=(settings.area, 1.0))


def plain_view(settings: TrainingSettings) -> Augmentation:
    """The view of validation: the middle of the photo, nothing random."""
    resize = settings.resize if settings.augmentation == "square" else settings.side
    return SquareCrop(resize, settings.side, random=False)


def cached_view(settings: TrainingSettings, number: int) -> Augmentation:
    """View ``number`` of a photo: first the whole photo at each side, then random views with the sides in turn."""
    sides = settings.view_sides
    side = sides[number % len(sides)]
    return Whole(side) if number < len(sides) else random_view(settings, side)
