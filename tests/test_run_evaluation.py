import dataclasses
import json

import numpy as np
import pytest

from bignas_tf import cost
from bignas_tf.calibration import calibrate
from bignas_tf.data import hold_out, load_source
from bignas_tf.extract import extract, weights_identity
from bignas_tf.intervals import wilson_interval
from bignas_tf.resize import prepare
from bignas_tf.run_evaluation import (
    RunEvaluation,
    accuracy_row,
    logistic_regression,
    sliced_statistics,
)
from bignas_tf.spaces import MBConvSpace, Stage
from bignas_tf.supernet import Supernet

TINY = MBConvSpace(
    name="tiny",
    resolution_choices=(6, 8),
    stem_widths=(4, 8),
    stem_strides=1,
    stages=(Stage((4, 8), (1, 2), (3,), (2,), 2),),
    head_widths=(16,),
    classes=10,
    input_channels=1,
)
MIDDLE = TINY.biggest().replace(resolution=6, stem_width=4, stage1_depth=1)

# Keras 3.15 converts its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def prepared(split, resolution):
    return np.asarray(prepare(split.read(np.arange(len(split))), resolution))


def finished_child(supernet, genotype, calibration):
    child = extract(supernet, genotype)
    calibrate(child, prepared(calibration, genotype["resolution"]))
    return child


def top1(child, split):
    images = prepared(split, child.inputs[0].shape[1])
    return np.mean(child.predict(images, verbose=0).argmax(-1) == split.labels)


def child_with_statistics_of(bigger, supernet, genotype):
    """A child with the first channels of the bigger child's moving statistics."""
    child = extract(supernet, genotype)
    theirs = {variable.path: variable for variable in bigger.variables}
    for variable in child.variables:
        if "/moving_" in variable.path:
            variable.assign(np.asarray(theirs[variable.path])[: variable.shape[0]])
    return child


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A supernet with random weights, its data, a saved child, and their evaluation."""
    folder = tmp_path_factory.mktemp("children")
    source = load_source("digits", image_size=8, channels=1)
    train, calibration = hold_out(source.train, 64, 0)
    supernet = Supernet(TINY, zero_gamma=False)
    rng = np.random.default_rng(0)
    for variable in supernet.variables_by_path().values():
        variable.assign(rng.normal(0.2, 0.5, variable.shape))
    child = finished_child(supernet, MIDDLE, calibration)
    child.save(folder / "middle.keras")
    known = {"genotype": MIDDLE.as_dict(), "weights": weights_identity(supernet.weight_arrays())}
    description = {"spec": MIDDLE.spec().to_json(), **known}
    (folder / "middle.json").write_text(json.dumps(description))
    evaluation = RunEvaluation(supernet, calibration, source)
    result = evaluation.run([folder / "middle.keras"], hold_out(train, 200, 1)[1])
    return supernet, source, calibration, child, result


def test_the_test_images_are_those_that_nothing_else_has_seen(evaluated):
    _, source, _, _, result = evaluated
    assert (result["split"], result["images"]) == ("test", len(source.test))
    assert result["classes"] == list(source.classes)


def test_a_saved_child_has_the_accuracy_that_keras_gives(evaluated):
    _, source, _, child, result = evaluated
    row = result["children"]["middle"]
    assert row["top1"] == top1(child, source.test)
    assert row["genotype"] == MIDDLE.as_dict()
    assert row["top1_interval"] == list(wilson_interval(row["top1"], len(source.test)))


def test_weights_that_differ_anywhere_have_another_identity(evaluated):
    supernet, *_, result = evaluated
    arrays = supernet.weight_arrays()
    identity = weights_identity(arrays)
    assert result["children"]["middle"]["weights"] == identity
    assert weights_identity(dict(reversed(arrays.items()))) == identity
    changed = {path: array.copy() for path, array in arrays.items()}
    path, array = list(changed.items())[-1]
    array.flat[-1] = np.nextafter(array.flat[-1], np.float32(np.inf))
    assert weights_identity(changed) != identity
    assert weights_identity(arrays | {path: arrays[path][None]}) != identity


@pytest.mark.parametrize("name", ["biggest", "smallest"])
def test_the_extremes_have_the_accuracy_of_their_extracted_children(evaluated, name):
    supernet, source, calibration, _, result = evaluated
    genotype = getattr(TINY, name)()
    child = finished_child(supernet, genotype, calibration)
    # Two ways through float32 may differ on an image whose best two classes are as good as equal.
    assert result[name]["top1"] == pytest.approx(top1(child, source.test), abs=1.5 / 359)
    assert result[name]["mmacs"] == cost.count(genotype.spec()).mmacs


def test_uncalibrated_means_the_biggest_childs_statistics(evaluated):
    supernet, source, calibration, _, result = evaluated
    biggest = finished_child(supernet, TINY.biggest(), calibration)
    stale = top1(child_with_statistics_of(biggest, supernet, MIDDLE), source.test)
    row = result["children"]["middle"]
    assert row["top1_uncalibrated"] == pytest.approx(stale, abs=1.5 / 359)
    assert row["top1_uncalibrated"] != row["top1"]
    # The biggest child's own statistics are calibrated.
    assert "top1_uncalibrated" not in result["biggest"]


def test_sliced_statistics_are_the_first_channels_of_every_normalization():
    spec = MIDDLE.spec()
    norms = {op.name: op.channels for op in spec.ops() if type(op).__name__ == "BatchNorm"}
    bigger = {
        f"{op.name}/{name}": np.arange(op.channels) + 100.0 * number
        for number, name in enumerate(("moving_mean", "moving_variance"))
        for op in TINY.biggest().spec().ops()
        if type(op).__name__ == "BatchNorm"
    }
    found = sliced_statistics(bigger, spec)
    assert len(found) == 2 * len(norms)
    for name, channels in norms.items():
        np.testing.assert_array_equal(found[f"{name}/moving_mean"], np.arange(channels))
        np.testing.assert_array_equal(found[f"{name}/moving_variance"], np.arange(channels) + 100)


def test_the_logistic_regression_is_fitted_to_the_given_images_only(evaluated):
    _, source, _, _, result = evaluated
    row = result["baselines"]["logistic regression"]
    assert 0.8 < row["top1"] < 0.95  # 1,438 digits reach 0.96
    images = hold_out(source.train, 200, 1)[1]
    assert logistic_regression(images, images).mean() > 0.98
    shifted = dataclasses.replace(images, labels=(images.labels + 1) % 10)
    assert logistic_regression(shifted, source.test).mean() < 0.05


def test_the_interval_of_an_accuracy_is_wilsons():
    row = accuracy_row(np.array([True] * 90 + [False] * 10))
    assert row["top1"] == 0.9
    # Worked by hand: (0.9 + z^2/200 +- z sqrt(0.09/100 + z^2/40000)) / (1 + z^2/100), z = 1.96.
    assert row["top1_interval"] == pytest.approx([0.82563, 0.94477], abs=1e-5)


def test_no_baseline_is_fitted_where_none_is_asked_for(evaluated, tmp_path):
    supernet, source, calibration, _, _ = evaluated
    result = RunEvaluation(supernet, calibration, source).run([])
    assert result["baselines"] == {} and result["children"] == {}
