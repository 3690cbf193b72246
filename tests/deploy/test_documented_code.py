import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from bignas_tf.data.images import decode_image
from bignas_tf.deploy.preprocessing import in_range, placed
from bignas_tf.deploy.tflite import convert

DOCS = Path(__file__).resolve().parents[2] / "docs"


def snippet():
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "deploy.md").read_text(), re.DOTALL)
    return code


@pytest.mark.parametrize(
    ("preprocessing", "arguments", "digits"),
    [("outside", {}, 1e-4), ("inside", {"quantization": "int8", "io": "uint8"}, 0.1)],
)
def test_the_python_of_the_docs_prints_the_class_that_keras_gives_the_centre_of_a_wide_picture(
    preprocessing, arguments, digits, model, photographs, tmp_path
):
    placed_model, metadata = placed(model, {}, preprocessing)
    images = in_range(photographs, metadata["input_range"])
    convert(
        placed_model,
        tmp_path / "s.tflite",
        calibration_images=images,
        verification_images=images,
        metadata=metadata,
        labels=[f"class {i}" for i in range(10)],
        **arguments,
    )
    photograph = datasets.load_sample_image("flower.jpg")
    height, width, _ = photograph.shape
    assert 1.49 < width / height < 1.51
    # A JPEG would lose what the comparison needs.
    Image.fromarray(photograph).save(tmp_path / "picture.png")
    code = snippet().replace("picture.jpg", "picture.png")
    done = subprocess.run(  # noqa: S603 - our own documentation
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r"class (\d) (.*)\n", done.stdout)
    pixels = decode_image(str(tmp_path / "picture.png"), 24, 3)[None]  # as the package loads it
    scores = np.asarray(model(pixels.astype(np.float32) / 127.5 - 1, training=False))[0]
    scale = np.abs(scores).max()
    assert scores[int(found[1])] > scores.max() - digits * scale
    assert abs(float(found[2]) - scores[int(found[1])]) < digits * scale
