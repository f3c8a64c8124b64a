"""A small data set prepared by TFDS, with the features of its ``caltech_birds2011``; the second photo is cut short."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


def prepare(folder: Path) -> Path:
    """Writes two training photos and a test photo as ArrayRecord, without TensorFlow; returns the version's folder."""
    CaltechBirds2011(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder / "caltech_birds2011" / "0.2.0"


with tfds.core.registered.skip_registration():

    class CaltechBirds2011(tfds.core.GeneratorBasedBuilder):
        """The features of TFDS's own builder, without its downloads; pictures as files, which needs no TensorFlow."""

        VERSION = tfds.core.Version("0.2.0")

        def _info(self) -> Any:
            features = {
                "image": tfds.features.Image(),
                "image/filename": tfds.features.Text(),
                "label": tfds.features.ClassLabel(num_classes=200),
                "label_name": tfds.features.Text(),
                "bbox": tfds.features.BBoxFeature(),
                "segmentation_mask": tfds.features.Image(shape=(None, None, 1)),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {"train": self._generate_examples(2), "test": self._generate_examples(1)}

        def _generate_examples(self, count: int) -> Iterator[Any]:
            for number in range(count):
                mask = np.zeros((30, 40), np.uint8)
                mask[5:10, 4:20] = 255
                pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)
                yield (
                    number,
                    {
                        "image": _png(pixels) if number < 1 else io.BytesIO(_png(pixels).getvalue()[:60]),
                        "image/filename": f"bird_{number}.jpg",
                        "label": 3 + number,
                        "label_name": "Sooty_Albatross",
                        "bbox": tfds.features.BBox(ymin=5 / 30, xmin=4 / 40, ymax=10 / 30, xmax=20 / 40),
                        "segmentation_mask": _png(mask),
                    },
                )


def _png(array: np.ndarray) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    file.seek(0)
    return file
