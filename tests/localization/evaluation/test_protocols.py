"""True boxes, masks and photos in the frame of each protocol."""

import numpy as np

from localization.evaluation.protocols import FULL, OFFICIAL_FINE_GRAINED, PROTOCOLS, WSOLEVALUATION


def test_true_boxes_in_the_crop() -> None:
    # A photo of 960 x 240 becomes 480 x 480: x halves, y doubles, both minus 16, clipped to [0, 447].
    boxes = OFFICIAL_FINE_GRAINED.true_boxes([(100, 50, 301, 100), (0, 0, 960, 240)], (240, 960), (448, 448))
    np.testing.assert_array_equal(boxes, [[34, 84, 134, 184], [0, 0, 447, 447]])  # 134.5 to even
    truncated = WSOLEVALUATION.true_boxes([(1, 1, 100, 100)], (225, 225), (224, 224))
    np.testing.assert_array_equal(truncated, [[0, 0, 99, 99]])


def test_crop_is_central_for_photos_and_masks() -> None:
    pixels, mask = np.zeros((480, 480, 3), np.uint8), np.zeros((240, 240), np.uint8)
    pixels[16, 16] = 255
    mask[8, 8] = 1
    cropped, true = OFFICIAL_FINE_GRAINED.prepare(pixels), OFFICIAL_FINE_GRAINED.true_mask(mask, (448, 448))
    assert cropped.shape == (448, 448, 3)
    assert cropped[0, 0, 0] == 255
    assert true.shape == (448, 448)
    assert true[:2, :2].all()
    assert true.sum() == 4


def test_whole_photos_keep_their_shape() -> None:
    np.testing.assert_allclose(FULL.true_boxes([(10, 20, 30, 40)], (100, 200), (50, 100)), [[5, 10, 15, 20]])
    mask = np.zeros((100, 200), np.uint8)
    mask[20:40, 10:30] = 1
    assert FULL.true_mask(mask, (50, 100))[10:20, 5:15].all()
    assert FULL.found_box(None, (4, 4)) is None
    assert WSOLEVALUATION.found_box(None, (224, 224)) == (0, 0, 0, 0)
    assert WSOLEVALUATION.found_box((0, 0, 224, 9), (224, 224)) == (0, 0, 223, 9)


def test_protocols_by_name() -> None:
    assert list(PROTOCOLS) == ["fine-grained", "imagenet", "wsolevaluation", "full"]
    assert [p.convention for p in PROTOCOLS.values()] == ["inclusive", "inclusive", "inclusive", "edges"]
