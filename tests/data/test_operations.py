"""Every operation against its formula in NumPy, which shares no code with Pillow."""

from collections import defaultdict

import numpy as np
import pytest
from PIL import Image

from bignas_tf.data.operation_policies import draw_operations, operation_value
from bignas_tf.data.operations import OPERATIONS, operate

RNG = np.random.default_rng(3)
FILL = 77


def noise(*shape):
    return RNG.integers(0, 256, shape, np.uint8)


def smooth(height, width):
    """Not every value occurs, and none of the extremes."""
    wave = np.sin(np.arange(height) / 9)[:, None, None] + np.cos(np.arange(width) / 7)[:, None]
    return (120 + 40 * wave * np.array([1, 0.7, 0.4])).astype(np.uint8)


def applied(name, pixels, value=0.0):
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    result = operate(image, OPERATIONS.index(name), value, FILL)
    assert result.mode == image.mode
    return np.asarray(result).reshape(pixels.shape)


def images():
    return [noise(17, 23, 3), smooth(40, 31), noise(16, 16, 1), np.full((5, 4, 3), 9, np.uint8)]


def luma(pixels):
    """Pillow's integer form of 0.299 R + 0.587 G + 0.114 B."""
    if pixels.shape[-1] == 1:
        return pixels
    weights = np.array([19595, 38470, 7471])
    return ((pixels @ weights + 2**15) >> 16)[..., None]


def blended(other, pixels, factor):
    values = other + factor * (pixels.astype(float) - other)
    return values.clip(0, 255)


def by_channel(function, pixels):
    return np.stack([function(pixels[..., c]) for c in range(pixels.shape[-1])], axis=-1)


def stretched(channel):
    low, high = int(channel.min()), int(channel.max())
    if high == low:
        return channel
    return np.floor((channel.astype(float) - low) * 255 / (high - low) + 1e-9)


def equalized(channel):
    counts = np.bincount(channel.ravel(), minlength=256)
    present = np.flatnonzero(counts)
    step = (channel.size - counts[present[-1]]) // 255
    if len(present) <= 1 or not step:
        return channel
    before = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return ((step // 2 + before) // step).clip(0, 255)[channel]


@pytest.mark.parametrize("pixels", images(), ids=lambda p: str(p.shape))
def test_operations_on_values_follow_their_formulas(pixels):
    exact = {
        ("identity", 0): pixels,
        ("invert", 0): 255 - pixels,
        ("auto_contrast", 0): by_channel(stretched, pixels),
        ("equalize", 0): by_channel(equalized, pixels),
        ("posterize", 5): pixels // 8 * 8,
        ("posterize", 8): pixels,
        ("solarize", 128): np.where(pixels < 128, pixels, 255 - pixels),
        ("solarize", 256): pixels,
        ("solarize", 0): 255 - pixels,
        ("solarize_add", 33): np.where(pixels < 128, pixels + np.int64(33), pixels).clip(0, 255),
    }
    for (name, value), expected in exact.items():
        difference = applied(name, pixels, value).astype(int) - expected
        # The stretch ends in a truncation, which floating point may take one lower.
        assert abs(difference).max() <= (1 if name == "auto_contrast" else 0), name


@pytest.mark.parametrize("pixels", images(), ids=lambda p: str(p.shape))
@pytest.mark.parametrize("factor", [0.1, 0.6, 1.0, 1.9])
def test_enhancements_blend_with_their_plain_image(pixels, factor):
    plain = {
        "brightness": np.zeros_like(pixels),
        "color": np.broadcast_to(luma(pixels), pixels.shape),
        "contrast": np.full(pixels.shape, int(luma(pixels).mean() + 0.5)),
    }
    for name, other in plain.items():
        result = applied(name, pixels, factor)
        assert abs(result - blended(other.astype(float), pixels, factor)).max() <= 1, name
    if factor == 1:
        np.testing.assert_array_equal(applied("sharpness", pixels, 1.0), pixels)


@pytest.mark.parametrize("factor", [0.1, 1.9])
def test_sharpness_blends_with_neighbours_of_weight_1_and_the_middle_of_5(factor):
    pixels = noise(12, 14, 3)
    padded = pixels.astype(float)
    total = sum(
        np.roll(padded, (y, x), (0, 1)) * (5 if y == x == 0 else 1)
        for y in (-1, 0, 1)
        for x in (-1, 0, 1)
    )
    other = np.floor(total / 13 + 0.5)
    result, expected = applied("sharpness", pixels, factor), blended(other, pixels, factor)
    inner = (slice(1, -1), slice(1, -1))
    # The smoothed image is rounded to 8 bits before it is blended.
    assert abs(result - expected)[inner].max() <= 1 + abs(1 - factor)
    border = np.ones((12, 14), bool)
    border[inner] = False
    assert abs(result[border].astype(int) - pixels[border]).max() <= 1  # not smoothed


def moved(pixels, source):
    """Takes every pixel from where `source` says its centre comes from, or fills it."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    x, y = (np.floor(v).astype(int) for v in source(x, y))
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    taken = pixels[y.clip(0, height - 1), x.clip(0, width - 1)]
    return np.where(inside[..., None], taken, FILL)


@pytest.mark.parametrize("pixels", images()[:3], ids=lambda p: str(p.shape))
@pytest.mark.parametrize("sign", [-1, 1])
def test_geometry_takes_the_nearest_pixel_and_fills_the_rest(pixels, sign):
    height, width = pixels.shape[:2]
    slope, share, degrees = 0.2137 * sign, 0.3137 * sign, 21.37 * sign
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    middle_x, middle_y = width / 2, height / 2
    sources = {
        ("shear_x", slope): lambda x, y: (x + slope * y, y),
        ("shear_y", slope): lambda x, y: (x, y + slope * x),
        ("translate_x", share): lambda x, y: (x + share * width, y),
        ("translate_y", share): lambda x, y: (x, y + share * height),
        ("translate_y_pixels", 5.0 * sign): lambda x, y: (x, y + 5 * sign),
        # A positive angle turns the image counterclockwise, rows counting downwards.
        ("rotate", degrees): lambda x, y: (
            (x - middle_x) * cos - (y - middle_y) * sin + middle_x,
            (x - middle_x) * sin + (y - middle_y) * cos + middle_y,
        ),
    }
    for (name, value), source in sources.items():
        result, expected = applied(name, pixels, value), moved(pixels, source)
        # A centre on the border of two pixels may fall to either side.
        differing = (result != expected).any(axis=-1).mean()
        assert differing <= 0.01, (name, differing)
    np.testing.assert_array_equal(applied("rotate", pixels, 0.0), pixels)


def test_levels_span_the_published_ranges():
    ranges = {
        "shear_x": (0, 0.3), "translate_y": (0, 150 / 331), "rotate": (0, 30), "color": (0.1, 1.9),
        "sharpness": (0.1, 1.9), "posterize": (8, 4), "solarize": (256, 0),
    }  # fmt: skip
    for name, (low, high) in ranges.items():
        assert operation_value(name, 0) == pytest.approx(low)
        assert operation_value(name, 1) == pytest.approx(high)
    assert operation_value("shear_y", 0.5, True) == pytest.approx(-0.15)
    assert operation_value("brightness", 0.5, True) == pytest.approx(1.0)
    assert operation_value("solarize", 4 / 9) == 142


N = 200_000


def drawn(kind, n=N, epoch=0, layers=2, magnitude=9.0):
    return draw_operations(kind, n, seed=1, epoch=epoch, layers=layers, magnitude=magnitude)


def share_of(draws, name, layer):
    return (draws["operations"][:, layer] == OPERATIONS.index(name)).mean()


@pytest.mark.parametrize(
    ("kind", "name", "first", "second"),
    [
        # Sums of the probabilities that the published table gives the operation there.
        ("autoaugment", "rotate", 2.2, 1.4),
        ("autoaugment", "posterize", 1.8, 1.0),
        ("autoaugment", "equalize", 3.4, 7.8),
        ("autoaugment", "translate_x", 0, 0),
        ("autoaugment_v0", "solarize_add", 0, 1.4),
        ("autoaugment_v0", "rotate", 1.0, 3.6),
        ("autoaugment_v0", "equalize", 4.0, 4.0),
        ("autoaugment_v0", "posterize", 1.2, 0),
    ],
)
def test_autoaugment_draws_operations_as_often_as_its_table_says(kind, name, first, second):
    draws = drawn(kind)
    for layer, total in enumerate((first, second)):
        probability = total / 25
        deviation = np.sqrt(probability * (1 - probability) / N)
        assert abs(share_of(draws, name, layer) - probability) <= 5 * deviation


def test_the_operations_of_a_sub_policy_come_together():
    draws = drawn("autoaugment_v0")
    translated = draws["operations"][:, 1] == OPERATIONS.index("translate_y_pixels")
    # That line rotates first, with probability 1, by 7 tenths of 30 degrees.
    assert (draws["operations"][translated, 0] == OPERATIONS.index("rotate")).all()
    assert np.unique(draws["values"][translated, 0]) == pytest.approx([-21, 21])
    assert (draws["values"][translated, 0] > 0).mean() == pytest.approx(0.5, abs=0.03)
    assert np.unique(draws["values"][translated, 1]) == pytest.approx([-225, 225])


def test_efficientnets_policy_has_the_ranges_of_its_code():
    expected = {
        # Levels 6 and 2 leave int(2.4) bits and int(0.8), which no image has.
        "posterize": {2, 1},
        # Levels 2, 3, 4, 8 and 10: the low ones invert most, the last nothing.
        "solarize": {51, 76, 102, 204, 256},
        "solarize_add": {33, 77},
        "translate_y_pixels": {-225, 225},
        "rotate": {0, -6, 6, -15, 15, -21, 21, -24, 24, -27, 27},
        "shear_x": {-0.27, 0.27},
        "shear_y": {0, -0.09, 0.09, -0.12, 0.12, -0.21, 0.21},
        "color": {0.1, 0.28, 0.82, 1.18, 1.36, 1.72},
    }
    draws = drawn("autoaugment_v0")
    found = defaultdict(set)
    for operation, value in set(zip(draws["operations"].flat, draws["values"].flat, strict=True)):
        found[OPERATIONS[operation]].add(round(float(value), 4) + 0.0)  # -0 is 0
    without = {"identity", "auto_contrast", "equalize", "invert"}
    assert found == expected | dict.fromkeys(without, {0})


def test_a_translation_beyond_the_image_leaves_the_fill_only():
    assert (applied("translate_y_pixels", noise(224, 8, 3), -225) == FILL).all()
    kept = applied("translate_y_pixels", pixels := noise(230, 8, 3), 225)
    np.testing.assert_array_equal(kept[:5], pixels[225:])


def test_what_is_not_drawn_has_no_value():
    for kind in ("autoaugment", "autoaugment_v0", "randaugment"):
        draws = drawn(kind, 1000)
        assert (draws["values"][draws["operations"] == 0] == 0).all()


def test_randaugment_draws_its_14_operations_alike_at_one_magnitude():
    draws = drawn("randaugment", layers=3, magnitude=5)
    assert draws["operations"].shape == draws["values"].shape == (N, 3)
    for layer in range(3):
        found, counts = np.unique(draws["operations"][:, layer], return_counts=True)
        assert len(found) == 14
        assert abs(counts - N / 14).max() < 5 * np.sqrt(N / 14)
    rotated = draws["operations"] == OPERATIONS.index("rotate")
    assert np.unique(draws["values"][rotated]) == pytest.approx([-15, 15])
    names = {OPERATIONS[i] for i in np.unique(draws["operations"])}
    assert not names & {"invert", "solarize_add"}


def test_operations_are_the_same_on_every_machine_and_after_every_upgrade():
    assert drawn("autoaugment", 4)["operations"].tolist() == [[12, 2], [4, 8], [0, 9], [2, 2]]
    assert drawn("randaugment", 3)["operations"].tolist() == [[12, 2], [0, 8], [0, 15]]
