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


def test_the_box_that_each_protocol_compares() -> None:
    activation = np.zeros((224, 224), np.float32)
    activation[:100, 124:] = 0.25
    activation[120:170, 10:70] = 1
    large, strong = (124, 0, 224, 100), (10, 120, 70, 170)
    assert OFFICIAL_FINE_GRAINED.found_boxes(activation, (0, 1), [0.1, 0.5]) == [large, strong]
    assert WSOLEVALUATION.found_boxes(activation, (0, 1), [0.1]) == [(124, 0, 223, 100)]
    (found,) = FULL.found_boxes(activation, (0, 1), [0.1])
    assert found is not None
    assert tuple(found[:4]) == strong
    nothing = np.zeros((4, 4), np.float32)
    assert (
        FULL.found_boxes(nothing, (0, 0), [0.1]) == OFFICIAL_FINE_GRAINED.found_boxes(nothing, (0, 0), [0.1]) == [None]
    )
    assert WSOLEVALUATION.found_boxes(nothing, (0, 0), [0.1]) == [(0, 0, 0, 0)]


def test_protocols_by_name() -> None:
    assert list(PROTOCOLS) == ["fine-grained", "imagenet", "wsolevaluation", "full"]
    assert [p.convention for p in PROTOCOLS.values()] == ["inclusive", "inclusive", "inclusive", "edges"]
