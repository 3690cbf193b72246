import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bignas_tf.data import BrokenImageError, DataError, load_source

RNG = np.random.default_rng(11)


def write(path, shape=(6, 6, 3)):
    pixels = RNG.integers(0, 256, shape, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def one_tree(tmp_path):
    """Returns the root, and the pixels by class and file name."""
    pixels = {}
    for name, count in (("ant", 6), ("Bee", 4), ("číslo 数", 10)):
        for i in range(count):
            file = f"{name}{i} ü.png"
            pixels[name, file] = write(tmp_path / "data" / name / file)
    return tmp_path / "data", pixels


@pytest.fixture
def two_trees(tmp_path):
    root = tmp_path / "data"
    for split, count in (("train", 4), ("test", 2)):
        for name in ("ant", "bee"):
            for i in range(count):
                write(root / split / name / f"{i}.png")
    return root


def test_one_tree_is_split_by_class_and_keeps_pixels_with_labels(one_tree):
    root, pixels = one_tree
    source = load_source(f"folder:{root}", image_size=6, test_fraction=0.5)
    assert source.classes == ("Bee", "ant", "číslo 数")
    assert np.bincount(source.test.labels).tolist() == [2, 3, 5]
    found = [
        (source.classes[label], image.tobytes())
        for split in (source.train, source.test)
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    assert sorted(found) == sorted((name, p.tobytes()) for (name, _), p in pixels.items())


@pytest.mark.parametrize("folder", ["test", "val", "validation"])
def test_a_test_tree_is_used_as_it_is(two_trees, folder):
    (two_trees / "test").rename(two_trees / folder)
    source = load_source(f"folder:{two_trees}", image_size=6)
    assert source.train.labels.tolist() == [0] * 4 + [1] * 4
    assert source.test.labels.tolist() == [0, 0, 1, 1]
    with Image.open(two_trees / folder / "bee" / "1.png") as image:
        np.testing.assert_array_equal(source.test.images[3], np.asarray(image))


def test_beyond_the_memory_limit_files_are_decoded_when_read(one_tree):
    root, _ = one_tree
    memory, disk = (
        load_source(f"folder:{root}", image_size=5, memory_limit_mb=limit) for limit in (1, 0)
    )
    assert memory.train.paths is None and disk.train.images is None
    assert disk.train.image_shape == memory.train.image_shape == (5, 5, 3)
    assert disk.fingerprint == memory.fingerprint
    for one, other in ((memory.train, disk.train), (memory.test, disk.test)):
        np.testing.assert_array_equal(one.labels, other.labels)
        index = RNG.permutation(len(one))
        np.testing.assert_array_equal(one.read(index), other.read(index))
        np.testing.assert_array_equal(
            one.take(index).images, other.take(index).read(range(len(index)))
        )


def test_the_memory_limit_counts_decoded_bytes_of_both_splits(two_trees):
    bytes_needed = 12 * 6 * 6 * 3
    for spare, in_memory in ((0, True), (-1, False)):
        limit = (bytes_needed + spare) / 1e6
        source = load_source(f"folder:{two_trees}", image_size=6, memory_limit_mb=limit)
        assert (source.train.paths is None) == in_memory


def test_a_fingerprint_follows_the_data_not_the_place(two_trees, tmp_path):
    def fingerprint(root):
        return load_source(f"folder:{root}", image_size=6).fingerprint

    before = fingerprint(two_trees)
    moved = shutil.copytree(two_trees, tmp_path / "elsewhere")
    assert fingerprint(moved) == before
    (moved / "train" / "ant" / "0.png").rename(moved / "train" / "ant" / "new.png")
    assert fingerprint(moved) != before


def test_hidden_files_and_files_beside_the_classes_are_ignored(two_trees):
    for name in (".DS_Store", "._0.png"):
        (two_trees / "train" / "ant" / name).write_bytes(b"")
    (two_trees / "train" / "ant" / ".cache").mkdir()
    (two_trees / "train" / ".cache").mkdir()
    (two_trees / "train" / "readme.md").write_bytes(b"")
    assert len(load_source(f"folder:{two_trees}", image_size=6).train) == 8


def test_files_of_other_kinds_are_left_out_and_counted_by_suffix(two_trees):
    for place in ("train/ant/1.heic", "train/bee/2.HEIC", "test/ant/3.heic", "test/ant/LICENSE"):
        (two_trees / place).write_bytes(b"")
    write(two_trees / "train" / "bee" / "more" / "0.png")
    counts = r"left out.*'\.png'.*\]: \.heic: 3, folders: 1, no suffix: 1$"
    with pytest.warns(UserWarning, match=counts) as said:
        source = load_source(f"folder:{two_trees}", image_size=6)
    assert [warning.filename for warning in said] == [__file__]
    assert (len(source.train), len(source.test)) == (8, 4)


@pytest.mark.parametrize(
    "suffix",
    ["JPG", "jpeg", "jpe", "jfif", "PnG", "bmp", "gif", "WEBP", "tif", "TIFF", "ppm", "tga", "jp2"],
)
def test_image_suffixes_are_known_in_any_case(two_trees, suffix):
    write(two_trees / "train" / "ant" / f"more.{suffix}")
    assert len(load_source(f"folder:{two_trees}", image_size=6).train) == 9


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DataError, match="must name an existing folder. Received: '.*nowhere'"):
        load_source(f"folder:{tmp_path / 'nowhere'}", image_size=6)
    with pytest.raises(DataError, match="must name an existing folder. Received: ''"):
        load_source("folder:", image_size=6)


def test_fewer_than_two_classes_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"at least 2 folders.*Received: \[\]"):
        load_source(f"folder:{tmp_path}", image_size=6)
    write(tmp_path / "ant" / "1.png")
    with pytest.raises(DataError, match=r"at least 2 folders.*Received: \['ant'\]"):
        load_source(f"folder:{tmp_path}", image_size=6)


def test_a_class_folder_without_images_is_named(two_trees):
    (two_trees / "train" / "cat").mkdir()
    with pytest.raises(DataError, match="'.*train/cat' must hold images .*Received: none$"):
        load_source(f"folder:{two_trees}", image_size=6)
    (two_trees / "train" / "cat" / "cat.txt").write_text("meow")
    with pytest.raises(DataError, match=r"'.*train/cat' must hold images .*Received: \.txt: 1$"):
        load_source(f"folder:{two_trees}", image_size=6)


def test_classes_that_differ_between_train_and_test_are_named(two_trees):
    (two_trees / "test" / "bee").rename(two_trees / "test" / "cat")
    message = r"only in train \['bee'\], only in test \['cat'\]"
    with pytest.raises(DataError, match=message):
        load_source(f"folder:{two_trees}", image_size=6)


def test_train_without_a_test_folder_is_refused(two_trees):
    (two_trees / "test").rename(two_trees / "tests")
    with pytest.raises(DataError, match=r"one of \['test', .*Received: \['tests', 'train'\]"):
        load_source(f"folder:{two_trees}", image_size=6)


def test_a_class_with_one_image_cannot_be_split(one_tree):
    root, _ = one_tree
    write(root / "lone" / "1.png")
    with pytest.raises(DataError, match="`test_fraction`.*smallest with 1"):
        load_source(f"folder:{root}", image_size=6)


@pytest.mark.parametrize("test_only", [False, True])
@pytest.mark.parametrize("limit", [0, 1])
def test_an_empty_image_file_is_named_at_once(two_trees, limit, test_only):
    (two_trees / "test" / "ant" / "größe 0.png").write_bytes(b"")
    name = f"folder:{two_trees}"
    with pytest.raises(BrokenImageError, match="größe 0.png': the file is empty"):
        load_source(name, image_size=6, memory_limit_mb=limit, test_only=test_only)


@pytest.mark.parametrize("limit", [0, 1])
@pytest.mark.parametrize("part", [".", "train"])  # with a test folder, and without
def test_broken_training_images_do_not_matter_where_only_test_is_wanted(two_trees, part, limit):
    name = f"folder:{two_trees / part}"
    whole = load_source(name, image_size=6, memory_limit_mb=0)
    images = whole.test.read(np.arange(len(whole.test)))
    for number, path in enumerate(whole.train.paths):
        Path(path).write_bytes(b"no image" * (number % 2))
    source = load_source(name, image_size=6, memory_limit_mb=limit, test_only=True)
    assert (source.classes, len(source.train)) == (whole.classes, 0)
    np.testing.assert_array_equal(source.test.labels, whole.test.labels)
    np.testing.assert_array_equal(source.test.read(np.arange(len(images))), images)


def test_a_broken_image_is_named_when_it_is_decoded(two_trees):
    (two_trees / "train" / "bee" / "2.png").write_bytes(b"not a picture")
    with pytest.raises(BrokenImageError, match="bee/2.png"):
        load_source(f"folder:{two_trees}", image_size=6)
    source = load_source(f"folder:{two_trees}", image_size=6, memory_limit_mb=0)
    with pytest.raises(BrokenImageError, match="bee/2.png"):
        source.train.read(np.arange(8))
    assert source.train.read(np.arange(6)).shape == (6, 6, 6, 3)


def test_every_error_is_one_line(tmp_path):
    with pytest.raises(DataError) as caught:
        load_source(f"folder:{tmp_path}", image_size=6)
    assert "\n" not in str(caught.value)
