"""A small training set of real photos in class folders."""

from pathlib import Path

import cv2

CLASSES = {
    "castle": ["building.jpg", "china.jpg", "home.jpg", "rocket.jpg", "aero1.jpg"],
    "cat": ["chelsea.jpg", "squirrel_cls.jpg"],
    "graffiti": ["graf1.jpg", "graf3.jpg", "leuvenA.jpg"],
    "still life": ["coffee.jpg"],
}
PHOTOS = sum(map(len, CLASSES.values()))


def write_class_folders(root: Path, demo_photos: Path, *, side: int = 96) -> Path:
    """``root/CLASS/photo.jpg``, 11 photos in 4 classes of 5, 2, 3 and 1, the shorter side ``side`` pixels."""
    for label, names in CLASSES.items():
        (root / label).mkdir(parents=True)
        for name in names:
            photo = cv2.imread(str(demo_photos / name))
            factor = side / min(photo.shape[:2])
            small = cv2.resize(photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(root / label / name), small)
    return root
