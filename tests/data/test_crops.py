import io

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from bignas_tf.data import AugmentationPolicy, BatchPlan, Split
from bignas_tf.data.crops import crop_box, draw_crops
from bignas_tf.data.images import decode_image, fit
from bignas_tf.data.operations import operate

N = 20_000


def boxes(width, height, n=N, least_area=0.08, epoch=0):
    draws = draw_crops(n, seed=2, epoch=epoch)
    return np.array([crop_box(width, height, draw, least_area) for draw in draws])


@pytest.mark.parametrize(("width", "height"), [(400, 300), (300, 400), (500, 500), (640, 90)])
def test_a_crop_lies_within_the_image_and_its_shape_within_3_to_4_and_4_to_3(width, height):
    found = boxes(width, height)
    left, top, right, bottom = found.T
    assert (left >= 0).all() and (top >= 0).all()
    assert (right <= width).all() and (bottom <= height).all()
    w, h = right - left, bottom - top
    assert (w / h > 0.75 * (1 - 2 / h)).all() and (w / h < 4 / 3 * (1 + 2 / h)).all()
    assert (w * h >= 0.08 * width * height - w - h).all()


def test_on_a_square_area_shape_and_place_follow_those_of_rejection_sampling():
    side = 3000
    left, top, right, bottom = boxes(side, side).T
    w, h = right - left, bottom - top
    rng = np.random.default_rng(0)
    area = rng.uniform(0.08, 1, 20 * N)
    shape = np.exp(rng.uniform(np.log(0.75), np.log(4 / 3), 20 * N))
    fits = (area * shape <= 1) & (area / shape <= 1)
    for ours, theirs in ((w * h / side**2, area[fits]), (np.log(w / h), np.log(shape[fits]))):
        assert stats.ks_2samp(ours, theirs).statistic < 0.015
    small = (w < side // 2) & (h < side // 2)
    places = [first[small] / (side - size[small]) for first, size in ((left, w), (top, h))]
    assert all(stats.kstest(place, "uniform").statistic < 0.02 for place in places)
    assert abs(np.corrcoef(places)[0, 1]) < 0.03


def test_where_no_attempt_fits_the_largest_centred_part_of_an_allowed_shape_is_taken():
    found = boxes(3000, 30, n=500)
    assert (found == [1480, 0, 1520, 30]).all(axis=1).all()
    found = boxes(30, 3000, n=500)
    assert (found == [0, 1480, 30, 1520]).all(axis=1).all()
    assert crop_box(1, 1, draw_crops(1, 0, 0)[0], 0.08) == (0, 0, 1, 1)


def test_nothing_but_the_whole_of_a_square_has_its_whole_area():
    assert (boxes(64, 64, n=200, least_area=1.0) == [0, 0, 64, 64]).all()


def test_crops_do_not_depend_on_how_many_follow_and_differ_between_epochs():
    few, many, other = draw_crops(3, 5, 1), draw_crops(9, 5, 1), draw_crops(3, 5, 2)
    np.testing.assert_array_equal(few, many[:3])
    assert (few != other).any(axis=1).all()
    assert few[0, :4].tolist() == [56711, 25522, 25278, 13065]


SIZES = [(90, 60), (60, 97), (50, 50), (200, 40)]
POLICY = AugmentationPolicy(crop=0.08, flip=True, operations="autoaugment_v0", value=128)


def jpeg(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.fixture
def files(tmp_path):
    """A split of JPEG files of different sizes, a grey one among them."""
    rng = np.random.default_rng(4)
    paths = []
    for number in range(12):
        width, height = SIZES[number % 4]
        shape = (height, width, 3) if number != 5 else (height, width)
        paths.append(str(tmp_path / f"{number}.jpg"))
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(rng.integers(0, 256, shape, np.uint8)))
    labels = np.arange(12, dtype=np.int32) % 2
    return Split(labels, paths=tuple(paths), image_size=24, channels=3)


def by_hand(path, draws, row, policy, size=24):
    """Decode everything, then crop, resize, mirror and operate, one after the other."""
    with Image.open(path) as image:
        whole = image.convert("RGB")
    box = crop_box(*whole.size, draws["crops"][row], policy.crop)
    part = Image.fromarray(np.asarray(whole)[box[1] : box[3], box[0] : box[2]])
    image = np.asarray(part.resize((size, size), Image.Resampling.BICUBIC))
    if draws["flips"][row]:
        image = image[:, ::-1]
    image = Image.fromarray(np.ascontiguousarray(image))
    for layer in range(draws["operations"].shape[1]):
        operation, value = draws["operations"][row, layer], float(draws["values"][row, layer])
        image = operate(image, operation, value, policy.value)
    return np.asarray(image)


def test_a_batch_of_files_is_cropped_resized_mirrored_and_operated_on(files):
    plan = BatchPlan(files, batch_size=5, policy=POLICY, seed=3)
    for step in (0, 1, 5):
        batch, draws = plan.read(step), plan.draws(step)
        for row, index in enumerate(batch["index"]):
            expected = by_hand(files.paths[index], draws, row, POLICY)
            np.testing.assert_array_equal(batch["images"][row], expected)


def test_cutout_and_mixup_come_after_the_crop(files):
    both = AugmentationPolicy(crop=0.08, cutout=9, mixup=1.0, value=3)
    crop = AugmentationPolicy(crop=0.08)
    rest = AugmentationPolicy(cutout=9, mixup=1.0, value=3)
    plan = BatchPlan(files, batch_size=6, policy=both, seed=3)
    cropped = BatchPlan(files, batch_size=6, policy=crop, seed=3).read(1)["images"]
    np.testing.assert_array_equal(plan.read(1)["images"], rest.apply(cropped, plan.draws(1)))


def test_how_an_example_is_cropped_depends_on_seed_and_epoch_only(files):
    seen = []
    for batch_size in (3, 4, 12):
        plan = BatchPlan(files, batch_size=batch_size, policy=POLICY, seed=3)
        second = [plan.read(plan.steps_per_epoch + s) for s in range(plan.steps_per_epoch)]
        index = np.concatenate([batch["index"] for batch in second])
        images = np.concatenate([batch["images"] for batch in second])
        seen.append(images[np.argsort(index)])
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[0], seen[2])


def test_images_in_memory_are_cropped_as_files_are():
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 1), np.uint8)
    split = Split(np.zeros(6, np.int32), images=images)
    plan = BatchPlan(split, batch_size=3, policy=AugmentationPolicy(crop=0.3), seed=3)
    batch, draws = plan.read(1), plan.draws(1)
    for row, index in enumerate(batch["index"]):
        left, top, right, bottom = crop_box(16, 16, draws["crops"][row], 0.3)
        part = Image.fromarray(images[index, top:bottom, left:right, 0])
        expected = part.resize((16, 16), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(batch["images"][row, ..., 0], expected)


@pytest.mark.parametrize("mode", ["CMYK", "I;16", "P", "LA", "1", "RGBA"])
def test_an_image_of_any_mode_is_cropped_like_its_8_bit_form(mode, tmp_path):
    rng = np.random.default_rng(1)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (40, 60)).astype(np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).convert(mode)
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    image.save(path)
    view = POLICY.views(POLICY.draw(1, 7, 0))[0]
    with Image.open(path) as stored:
        plain = Image.fromarray(_whole(stored))
    np.testing.assert_array_equal(
        decode_image(str(path), 24, 3, view=view), fit(plain, 24, 3, view)
    )


def _whole(image):
    """The colours of every pixel, converted one by one."""
    columns = [
        fit(image.crop((x, y, x + 1, y + 1)), 1, 3)[0, 0]
        for y in range(image.height)
        for x in range(image.width)
    ]
    return np.stack(columns).reshape(image.height, image.width, 3)
