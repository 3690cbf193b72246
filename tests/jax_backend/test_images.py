"""Images reach children alike on both backends."""

import os
import subprocess
import sys

import image_case
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """JPEGs of several sizes, two classes."""
    root = tmp_path_factory.mktemp("jpeg")
    rng = np.random.default_rng(0)
    for part, count in (("train", 2), ("test", 3)):
        for label in ("cat", "dog"):
            (root / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (24 + number, 31, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / label / f"{number}.jpg", quality=80)
    return root


def test_decoded_and_resized_images_are_those_of_tensorflow(folder, tmp_path):
    path = tmp_path / "images.npz"
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    arguments = [sys.executable, image_case.__file__, str(folder), str(path)]
    subprocess.run(arguments, env=environment, check=True)  # noqa: S603
    found = image_case.images(folder)
    with np.load(path) as expected:
        assert set(expected.files) == set(found)
        np.testing.assert_array_equal(found["decoded"], expected["decoded"])
        for resolution in map(str, image_case.RESOLUTIONS):
            assert np.ptp(expected[resolution]) > 1
            np.testing.assert_allclose(found[resolution], expected[resolution], rtol=0, atol=1e-6)
