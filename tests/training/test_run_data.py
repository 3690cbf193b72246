"""Which images a run trains, calibrates, scores and tests on."""

import numpy as np
import pytest
from PIL import Image
from trainer_case import FOLDER, RECIPE, register

from bignas_tf.data import load_source
from bignas_tf.training.run_data import load_run_data


@pytest.fixture(autouse=True)
def tiny_by_name(monkeypatch):
    register(monkeypatch)


def test_no_image_is_in_two_of_training_held_out_and_test():
    data = load_run_data(RECIPE)
    splits = [data.train, data.held_out, data.source.test]
    rows = [split.read(np.arange(len(split))).reshape(len(split), -1) for split in splits]
    everything = load_source("digits", image_size=8, channels=1)
    whole = [split.read(np.arange(len(split))) for split in (everything.train, everything.test)]
    whole = np.concatenate(whole).reshape(1797, -1)
    assert sorted(map(bytes, np.concatenate(rows))) == sorted(map(bytes, whole))
    calibration = data.calibration.read(np.arange(64)).reshape(64, -1)
    assert set(map(bytes, calibration)) <= set(map(bytes, rows[0]))


@pytest.mark.parametrize(("held_out", "count"), [(0.1, 144), (100, 100), (1, 1), (1e-5, 1)])
def test_a_number_or_a_share_of_the_training_images_is_held_out(held_out, count):
    data = load_run_data(RECIPE.replace(held_out=held_out))
    assert (len(data.held_out), len(data.train)) == (count, 1438 - count)


def test_data_must_be_named_where_the_recipe_names_none():
    with pytest.raises(ValueError, match="`data` must be given for recipe 'tiny'"):
        load_run_data(FOLDER)


def test_calibration_images_of_a_folder_sorted_by_class_are_mixed(tmp_path):
    for part, count in (("train", 30), ("test", 2)):
        for number, name in enumerate(("black", "white")):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(np.full((8, 8), 255 * number, np.uint8)).save(folder / f"{i}.png")
    data = load_run_data(FOLDER.replace(calibration_images=32, held_out=10), f"folder:{tmp_path}")
    assert set(data.calibration.labels[:8]) == {0, 1}
    assert sorted(np.bincount(data.calibration.labels)) == [16, 16]
