import io
import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from bignas_tf.data import BrokenImageError, DataError, load_source

tfds = pytest.importorskip("tensorflow_datasets")

COUNTS = {"train": 12, "validation": 6, "test": 4}


def pixels(split, index):
    seed = [len(split), index]
    return np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)


class ThreeSmallClasses(tfds.core.GeneratorBasedBuilder):
    """Images by `pixels`; label = index + `shift` modulo 3, or -1 in the splits of `unlabelled`."""

    VERSION = tfds.core.Version("1.0.0")
    splits = ("train", "test")
    unlabelled = ()
    broken = None
    shift = 0

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "picture": tfds.features.Image(shape=(None, None, 3)),
                "kind": tfds.features.ClassLabel(names=["ant", "bee", "cat"]),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self, features=features, supervised_keys=("picture", "kind")
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in type(self).splits}

    def _generate_examples(self, split):
        for index in range(COUNTS[split]):
            file = io.BytesIO()
            Image.fromarray(pixels(split, index)).save(file, "PNG")
            if (split, index) == self.broken:
                file = io.BytesIO(file.getvalue()[:60])
            file.seek(0)
            label = -1 if split in self.unlabelled else (index + self.shift) % 3
            yield index, {"picture": file, "kind": label}


@pytest.fixture
def builder(monkeypatch, tmp_path):
    """Lets `tfds.builder` build this file's data set, in a temporary folder if none is given."""

    def build(name, **arguments):
        return ThreeSmallClasses(**{"data_dir": tmp_path / name} | arguments)

    monkeypatch.setattr(tfds, "builder", build)
    return monkeypatch


def contents(split):
    pairs = zip(split.labels, split.images, strict=True)
    return sorted((int(label), image.tobytes()) for label, image in pairs)


def read(split):
    """`contents` of a split whose images are not in memory."""
    pairs = zip(split.labels, split.read(np.arange(len(split))), strict=True)
    return sorted((int(label), image.tobytes()) for label, image in pairs)


def expected(name):
    return sorted((i % 3, pixels(name, i)[:, 1:7].tobytes()) for i in range(COUNTS[name]))


def test_tfds_images_are_decoded_exactly_and_cropped(builder):
    source = load_source("tfds:small", image_size=6)
    assert source.classes == ("ant", "bee", "cat")
    assert source.name == "tfds:small"
    assert contents(source.train) == expected("train")
    assert contents(source.test) == expected("test")
    assert source.fingerprint == load_source("tfds:small", image_size=5).fingerprint


def test_validation_stands_in_for_a_test_split_without_labels(builder):
    builder.setattr(ThreeSmallClasses, "splits", ("train", "test", "validation"))
    builder.setattr(ThreeSmallClasses, "unlabelled", ("test",))
    assert contents(load_source("tfds:a", image_size=6).test) == expected("validation")
    builder.setattr(ThreeSmallClasses, "splits", ("train", "validation"))
    assert contents(load_source("tfds:b", image_size=6).test) == expected("validation")


def test_train_alone_is_split_by_class(builder):
    builder.setattr(ThreeSmallClasses, "splits", ("train",))
    source = load_source("tfds:small", image_size=6, test_fraction=0.25)
    assert np.bincount(source.test.labels).tolist() == [1, 1, 1]
    assert sorted(contents(source.train) + contents(source.test)) == expected("train")


def test_where_only_the_test_split_is_wanted_no_other_is_read(builder):
    # As much as the test images take, decoded: those of train would be refused.
    limit = COUNTS["test"] * 6 * 6 * 3 / 1e6
    source = load_source("tfds:small", image_size=6, memory_limit_mb=limit, test_only=True)
    assert (source.classes, len(source.train)) == (("ant", "bee", "cat"), 0)
    assert contents(source.test) == expected("test")


def test_of_a_test_split_that_is_a_part_of_train_the_rest_is_not_decoded(builder):
    builder.setattr(ThreeSmallClasses, "splits", ("train",))
    whole = load_source("tfds:whole", image_size=6, test_fraction=0.25)
    label, image = contents(whole.train)[0]
    rows = range(label, COUNTS["train"], 3)
    row = next(i for i in rows if pixels("train", i)[:, 1:7].tobytes() == image)
    builder.setattr(ThreeSmallClasses, "broken", ("train", row))
    source = load_source("tfds:broken", image_size=6, test_fraction=0.25, test_only=True)
    assert (contents(source.test), len(source.train)) == (contents(whole.test), 0)


def test_a_data_set_without_train_is_refused(builder):
    builder.setattr(ThreeSmallClasses, "splits", ("test",))
    with pytest.raises(DataError, match=r"split 'train'. Received: \['test'\]"):
        load_source("tfds:small", image_size=6)


def test_a_broken_tfds_image_is_named_by_split_and_position(builder):
    builder.setattr(ThreeSmallClasses, "broken", ("test", 2))
    with pytest.raises(BrokenImageError, match=r"tfds:small/test\[\d\]"):
        load_source("tfds:small", image_size=6)


def test_a_data_set_larger_than_the_memory_limit_is_refused_with_what_can_be_done(
    builder, tmp_path
):
    with pytest.raises(DataError, match="0.001 MB .*Received: 'train', which alone") as refused:
        load_source("tfds:small", image_size=6, memory_limit_mb=0.001)
    advised = re.findall("'(tfds:small,[^']*)'", str(refused.value))
    assert [name.split(",")[1] for name in advised] == [
        "file_format=array_record",
        "train=train[:10%]",
    ]
    for name in advised:
        name = name.replace("NEW_FOLDER", str(tmp_path / "new"))
        assert len(load_source(name, image_size=6, memory_limit_mb=0.001).train)


def test_another_format_in_the_same_folder_is_refused(builder):
    load_source("tfds:small", image_size=6)
    with pytest.raises(DataError, match="already set to.*`data_dir` holds it in one format only"):
        load_source("tfds:small,file_format=array_record", image_size=6)


def test_splits_and_the_folder_are_part_of_the_name(builder, tmp_path):
    name = f"tfds:small,train=train[:75%],test=train[75%:],data_dir={tmp_path / 'a,b'}"
    source = load_source(name, image_size=6)
    assert (len(source.train), len(source.test)) == (9, 3)
    assert sorted(contents(source.train) + contents(source.test)) == expected("train")
    assert source.name == name
    assert list((tmp_path / "a,b").iterdir())


def test_a_data_set_with_random_access_stays_encoded_beyond_the_memory_limit(builder, tmp_path):
    name = "tfds:small,file_format=array_record"
    source = load_source(name, image_size=6, memory_limit_mb=0)
    assert source.train.images is None
    assert read(source.train) == expected("train")
    assert read(source.test) == expected("test")
    memory = load_source(name, image_size=6)
    for split, other in ((source.train, memory.train), (source.test, memory.test)):
        index = np.random.default_rng(0).permutation(len(split))
        np.testing.assert_array_equal(split.read(index), other.images[index])
        np.testing.assert_array_equal(split.take(index).read([1, 2]), other.images[index[1:3]])
    assert memory.fingerprint == source.fingerprint
    # Labels are read once: what is kept beside the data is what counts then.
    (kept,) = [file for file in tmp_path.rglob("*.npy") if len(np.load(file)) == 12]
    np.save(kept, (np.load(kept) + 1) % 3)
    again = load_source(name, image_size=6, memory_limit_mb=0)
    np.testing.assert_array_equal(again.train.labels, (source.train.labels + 1) % 3)
    np.save(kept, np.zeros(5, np.int32))
    assert load_source(name, image_size=6).fingerprint == source.fingerprint


def test_labels_kept_of_data_that_was_prepared_anew_are_not_used(builder, tmp_path):
    name = "tfds:small,file_format=array_record"
    first = load_source(name, image_size=6, memory_limit_mb=0)
    builder.setattr(ThreeSmallClasses, "shift", 1)
    load_source(f"{name},data_dir={tmp_path / 'new'}", image_size=6, memory_limit_mb=0)
    for new in (tmp_path / "new").rglob("*array_record*"):
        shutil.copy(new, tmp_path / "small" / new.relative_to(tmp_path / "new"))
    shutil.rmtree(tmp_path / "new")
    again = load_source(name, image_size=6, memory_limit_mb=0)
    assert len(list(tmp_path.rglob("*.npy"))) == 4  # those kept before are still there
    np.testing.assert_array_equal(again.train.labels, (first.train.labels + 1) % 3)


def test_images_that_shall_stay_encoded_are_kept_so_in_memory(builder):
    source = load_source("tfds:small", image_size=6, encoded=True)
    assert source.train.images is None
    assert read(source.train) == expected("train")
    with pytest.raises(DataError, match="0.001 MB .*'tfds:small,file_format=array_record,"):
        load_source("tfds:small", image_size=6, encoded=True, memory_limit_mb=0.001)


def test_a_broken_tfds_image_may_be_skipped(builder):
    builder.setattr(ThreeSmallClasses, "broken", ("train", 2))
    source = load_source("tfds:small", image_size=6, on_bad_image="skip")
    assert len(source.bad_images) == 1
    cats = [image for label, image in contents(source.train) if label == 2]
    whole = [image for label, image in expected("train") if label == 2]
    assert len(cats) == len(whole) == 4 and len(set(cats)) == 3 and set(cats) < set(whole)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tfds:small,splits=train", r"options among \['train', 'test'.*splits=train'"),
        ("tfds:,train=train", "options among.*Received: 'tfds:,train=train'"),
        ("tfds:small,train=dev", "`tfds:small` cannot be read: .*dev.* Received: dev"),
    ],
)
def test_options_that_make_no_sense_are_refused(builder, name, message):
    with pytest.raises(DataError, match=message) as caught:
        load_source(name, image_size=6)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_split_asked_for_by_name_must_have_labels(builder, part):
    builder.setattr(ThreeSmallClasses, "unlabelled", ("test",))
    with pytest.raises(DataError, match=f"`{part}` of .* must have labels"):
        load_source(f"tfds:small,{part}=test", image_size=6)


def test_a_mocked_data_set_has_the_counts_asked_for():
    with tfds.testing.mock_data(num_examples=5):
        source = load_source("tfds:cifar10", image_size=24)
        assert load_source("tfds:mnist", image_size=28, channels=1).train.image_shape == (28, 28, 1)
    assert len(source.train) == len(source.test) == 5
    assert source.train.images.shape == (5, 24, 24, 3)
    assert len(source.classes) == 10


def test_an_unknown_tfds_name_is_refused_in_one_line():
    with pytest.raises(DataError, match="Received: 'no_such_data'$") as caught:
        load_source("tfds:no_such_data", image_size=8)
    assert "\n" not in str(caught.value)


def test_a_tfds_data_set_without_classes_is_refused():
    with tfds.testing.mock_data(), pytest.raises(DataError, match="image and a class label"):
        load_source("tfds:imdb_reviews", image_size=8)


def test_without_tfds_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(DataError, match=r"needs tensorflow_datasets; .*: pip install '\.\[tfds\]'"):
        load_source("tfds:cifar10", image_size=8)
