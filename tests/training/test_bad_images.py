"""What a run lists of the images that it skips."""

import json

import numpy as np

from bignas_tf.data import BrokenImageError, Source, Split
from bignas_tf.data.encoded import BadImages
from bignas_tf.training.run_data import list_bad_images


def source_that_met(*names):
    bad_images = BadImages()
    for name in names:
        bad_images.add(BrokenImageError(name, f"{name} is torn"))
    nothing = Split(np.zeros(0, np.int32), images=np.zeros((0, 4, 4, 1), np.uint8))
    return Source("folder:x", ("a", "b"), nothing, nothing, 4, 1, "0" * 16, bad_images)


def listed(path):
    return json.loads(path.read_text())


def test_every_worker_lists_the_images_that_it_has_met(tmp_path):
    assert list_bad_images(source_that_met(), tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    said = list_bad_images(source_that_met("b", "a"), tmp_path)
    assert said.startswith("2 more images cannot be decoded, such as a; ")
    said = list_bad_images(source_that_met("c"), tmp_path, worker=1)
    assert said.endswith(f"all are in {tmp_path / 'bad_images.worker1.json'}")
    # A process that goes on knows only what it has met itself.
    assert list_bad_images(source_that_met("c"), tmp_path, worker=1) is None
    assert list_bad_images(source_that_met("d"), tmp_path, worker=1).startswith("1 more")
    assert listed(tmp_path / "bad_images.json") == {"a": "a is torn", "b": "b is torn"}
    assert list(listed(tmp_path / "bad_images.worker1.json")) == ["c", "d"]
