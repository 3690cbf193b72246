"""Images that no one expects survive, are skipped and listed, or are refused by name."""

import numpy as np
import pytest
from PIL import Image

from bignas_tf.data import (
    AugmentationPolicy,
    BatchPlan,
    BrokenImageError,
    DataError,
    Split,
    hold_out,
    load_source,
)
from bignas_tf.data.encoded import BadImages

COLOURS = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250], [120, 120, 120]])


def plain(position):
    """The number of the image in its lowest bits: never two alike."""
    return np.full((6, 6, 3), 8 * position, np.uint8)


@pytest.fixture
def half_broken(tmp_path):
    """Two classes of eight files; of the first, 1, 2 and 7 are broken, each in its own way."""
    for position in range(16):
        folder = tmp_path / "train" / ("ant" if position < 8 else "bée")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(plain(position)).save(folder / f"größe {position:02}.png")
    ant = tmp_path / "train" / "ant"
    (ant / "größe 01.png").write_bytes(b"")
    whole = (ant / "größe 02.png").read_bytes()
    (ant / "größe 02.png").write_bytes(whole[: len(whole) // 2])
    (ant / "größe 07.png").write_bytes(b"no image")
    for position in (0, 8):
        folder = tmp_path / "test" / ("ant" if position < 8 else "bée")
        folder.mkdir(parents=True)
        Image.fromarray(plain(position)).save(folder / "0.png")
    return tmp_path


def seen(split, indices=None):
    """Which numbers of `plain` are read."""
    indices = np.arange(len(split)) if indices is None else indices
    return (split.read(indices)[:, 0, 0, 0] // 8).tolist()


@pytest.mark.parametrize("limit", [0, 1], ids=["disk", "memory"])
def test_in_place_of_a_skipped_image_stands_the_next_of_its_class(half_broken, limit):
    source = load_source(
        f"folder:{half_broken}", image_size=6, memory_limit_mb=limit, on_bad_image="skip"
    )
    assert seen(source.train) == [0, 3, 3, 3, 4, 5, 6, 0, *range(8, 16)]
    assert seen(source.train, np.array([7, 15, 1])) == [0, 15, 3]
    assert len(source.bad_images) == 3
    reasons = {name[-6:-4]: reason for name, reason in source.bad_images.reasons().items()}
    assert list(reasons) == ["01", "02", "07"]
    assert reasons["01"] == "the file is empty"
    assert "not an image" in reasons["07"]


@pytest.mark.parametrize("limit", [0, 1], ids=["disk", "memory"])
def test_what_stands_in_for_a_skipped_image_is_of_the_same_part_of_the_data(half_broken, limit):
    source = load_source(
        f"folder:{half_broken}", image_size=6, memory_limit_mb=limit, on_bad_image="skip"
    )
    for seed in range(5):
        rest, held_out = hold_out(source.train, 8, seed)
        assert not set(seen(rest)) & set(seen(held_out))


@pytest.mark.parametrize("limit", [0, 1], ids=["disk", "memory"])
def test_a_share_is_read_as_in_the_whole_however_many_there_are(half_broken, limit):
    source = load_source(
        f"folder:{half_broken}", image_size=6, memory_limit_mb=limit, on_bad_image="skip"
    )
    _, held_out = hold_out(source.train, 8, 0)
    for split in (source.train, held_out, held_out.share(np.arange(8))):
        for workers in (1, 3, len(split)):
            parts = np.array_split(np.arange(len(split)), workers)
            shares = [split.share(part) for part in parts]
            assert sum(map(seen, shares), []) == seen(split)
            assert sum([s.labels.tolist() for s in shares], []) == split.labels.tolist()
    # A part of a share is a part as any other: what stands in is of its own.
    first, second = (source.train.share(np.arange(16)).take(i) for i in ([0, 1], [2, 3]))
    assert (seen(first), seen(second)) == ([0, 0], [3, 3])
    lone = source.train.share(np.array([2]))
    assert lone.in_memory(lambda count: None).images[0, 0, 0, 0] == 8 * 3


def test_a_share_without_images_is_refused(half_broken):
    split = load_source(f"folder:{half_broken}", image_size=6, on_bad_image="skip").test
    shares = np.array_split(np.arange(2), 3)
    with pytest.raises(DataError, match="at most 2 workers. Received: an empty share"):
        split.share(shares[2])


def test_skipping_changes_neither_the_split_nor_the_fingerprint(half_broken):
    skipping = load_source(f"folder:{half_broken}", image_size=6, on_bad_image="skip")
    for number in (1, 2, 7):
        path = half_broken / "train" / "ant" / f"größe {number:02}.png"
        Image.fromarray(plain(number)).save(path)
    whole = load_source(f"folder:{half_broken}", image_size=6)
    assert skipping.fingerprint == whole.fingerprint
    assert whole.bad_images is None
    np.testing.assert_array_equal(skipping.train.labels, whole.train.labels)


def test_a_skipped_image_gives_way_to_the_same_one_in_every_epoch_and_its_own_crop(half_broken):
    source = load_source(
        f"folder:{half_broken}", image_size=6, memory_limit_mb=0, on_bad_image="skip"
    )
    policy = AugmentationPolicy(crop=0.5, operations="autoaugment")
    plan = BatchPlan(source.train, batch_size=8, policy=policy, seed=0)
    plain_plan = BatchPlan(source.train, batch_size=8, policy=AugmentationPolicy(), seed=0)
    for step in range(4):
        batch = plan.read(step)
        draws = plan.draws(step)
        for row, index in enumerate(batch["index"]):
            instead = {1: 3, 2: 3, 7: 0}.get(int(index), int(index))
            view = policy.views({name: v[row : row + 1] for name, v in draws.items()})
            expected = source.train.read(np.array([instead]), view)[0]
            np.testing.assert_array_equal(batch["images"][row], expected)
        assert set(plain_plan.read(step)["images"][:, 0, 0, 0] // 8) <= {
            0,
            3,
            4,
            5,
            6,
            *range(8, 16),
        }
    assert len(source.bad_images) == 3


@pytest.mark.parametrize("limit", [0, 1], ids=["disk", "memory"])
def test_a_class_of_which_no_image_can_be_decoded_is_refused(half_broken, limit):
    for path in (half_broken / "train" / "ant").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="Each class must have an image.*Received: none of label 0"):
        source = load_source(
            f"folder:{half_broken}", image_size=6, memory_limit_mb=limit, on_bad_image="skip"
        )
        source.train.read(np.array([2]))


def test_without_skipping_a_broken_image_is_refused_by_name(half_broken):
    with pytest.raises(BrokenImageError, match="größe 01.png': the file is empty"):
        load_source(f"folder:{half_broken}", image_size=6, memory_limit_mb=0)
    (half_broken / "train" / "ant" / "größe 01.png").unlink()
    source = load_source(f"folder:{half_broken}", image_size=6, memory_limit_mb=0)
    with pytest.raises(BrokenImageError, match="größe 02.png"):
        seen(source.train)
    with pytest.raises(DataError, match=r"`on_bad_image`.*\['stop', 'skip'\]. Received: 'ignore'"):
        load_source(f"folder:{half_broken}", image_size=6, on_bad_image="ignore")


def test_bad_images_are_counted_once_however_many_threads_find_them(tmp_path):
    bad = BadImages()
    paths = tuple(str(tmp_path / name) for name in "babc")
    for path in paths:
        (tmp_path / path).write_bytes(b"no image")
    split = Split(
        np.zeros(4, np.int32),
        paths=paths,
        image_size=4,
        channels=3,
        bad_images=bad,
    )
    with pytest.raises(DataError, match="none of label 0"):
        split.read(np.arange(4))
    assert list(bad.reasons()) == [str(tmp_path / name) for name in "abc"]


def odd_files(folder, colour):
    """One picture of one colour in every form that may turn up, and its grey."""
    folder.mkdir(parents=True)
    image = Image.new("RGB", (31, 23), tuple(int(c) for c in colour))
    other = Image.new("RGB", (31, 23), (0, 0, 0))
    grey = image.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    image.convert("CMYK").save(folder / "ink.jpg", quality=100, subsampling=0)
    image.convert("RGBA").save(folder / "alpha.webp", lossless=True)
    image.save(folder / "animated.gif", save_all=True, append_images=[other])
    image.save(folder / "animated.png", save_all=True, append_images=[other])
    image.save(folder / "animated.webp", save_all=True, append_images=[other], lossless=True)
    image.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.png")
    image.save(folder / "plain ßñ漢字🙂.bmp")
    grey.save(folder / "grey.jpg", quality=100)
    deep.save(folder / "deep.png")
    return {"grey.jpg", "deep.png"}


@pytest.mark.parametrize("crop", [0.0, 0.08])
def test_pictures_in_every_form_give_their_colour(tmp_path, crop):
    for number, colour in enumerate(COLOURS):
        greys = odd_files(tmp_path / "train" / str(number), colour)
        odd_files(tmp_path / "val" / str(number), colour)
    source = load_source(f"folder:{tmp_path}", image_size=16, encoded=crop > 0)
    plan = BatchPlan(source.train, batch_size=36, policy=AugmentationPolicy(crop=crop), seed=0)
    batch = plan.read(0)
    paths = sorted(p for p in (tmp_path / "train").rglob("*") if p.is_file())
    for image, index, label in zip(batch["images"], batch["index"], batch["labels"], strict=True):
        path, expected = paths[index], COLOURS[label]
        assert path.parent.name == str(label)
        if path.name in greys:
            expected = np.full(3, round(float(expected @ [0.299, 0.587, 0.114])))
        assert abs(image.astype(int) - expected).max() <= 3, path.name


def test_a_class_a_hundred_times_rarer_than_another_is_in_every_part():
    labels = np.repeat([0, 1, 2], [900, 90, 9]).astype(np.int32)
    split = Split(labels, images=np.zeros((999, 4, 4, 1), np.uint8))
    rest, held_out = hold_out(split, 100, seed=0)
    assert np.bincount(held_out.labels).tolist() == [90, 9, 1]
    plan = BatchPlan(rest, batch_size=29, policy=AugmentationPolicy(), seed=0)
    epoch = np.concatenate([plan.read(step)["labels"] for step in range(plan.steps_per_epoch)])
    assert np.bincount(epoch).tolist() == [810, 81, 8]
