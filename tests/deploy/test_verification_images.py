import sys

import numpy as np
import pytest
from PIL import ExifTags, Image

from bignas_tf.deploy.verification_images import real_images


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_in_the_input_range_and_differ(channels):
    images = real_images((20, 28, channels), count=6, input_range=(0, 255))
    assert images.shape == (6, 20, 28, channels)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert 100 < images.max() <= 255
    assert len({image.tobytes() for image in images}) == 6
    unit = real_images((20, 28, channels), count=6, input_range=(-1, 1))
    np.testing.assert_allclose(unit, images / 127.5 - 1, atol=1e-6)


def test_a_folder_is_sampled_evenly_and_grey_becomes_colour(tmp_path):
    for index in range(9):
        Image.new("L", (5, 7), index * 30).save(tmp_path / f"{index}.png")
    for other in ("notes.txt", "._0.png"):
        (tmp_path / other).write_text("not an image")
    images = real_images((8, 8, 3), count=3, input_range=(0, 255), folder=tmp_path)
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), [0, 120, 240], atol=1e-4)


def test_photographs_of_a_folder_are_turned_upright(tmp_path):
    lying = np.zeros((6, 4, 3), np.uint8)
    lying[:, 0] = 255  # a camera's left side, which is up
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(lying).save(tmp_path / "photograph.png", exif=exif)
    images = real_images((4, 6, 3), count=1, input_range=(0, 1), folder=tmp_path)
    assert (images[0, 0] == 1).all() and (images[0, 1:] == 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (8, 8, 4)}, "1 or 3 channels"),
        ({"input_range": (1, -1)}, "increasing"),
        ({"count": 0}, "`count`"),
        ({"folder": "missing"}, "must be a folder"),
        ({"folder": "empty"}, "images in it"),
        ({"folder": "broken"}, "cannot|not an image"),
    ],
)
def test_wrong_requests_are_refused(changes, message, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"nonsense")
    if "folder" in changes:
        changes = {"folder": tmp_path / changes["folder"]}
    with pytest.raises(ValueError, match=message):
        real_images(**{"shape": (8, 8, 3), "count": 2, **changes})


def test_without_scikit_learn_a_folder_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match=r"name a folder, or .*: pip install '\.\[digits"):
        real_images((8, 8, 3), count=1, input_range=(0, 255))
