import numpy as np
import pytest

from bignas_tf.intervals import paired_interval, t_interval, wilson_interval


@pytest.mark.parametrize(
    ("successes", "images", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17, 1998, table I, method 3 (score).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilsons(successes, images, low, high):
    found = wilson_interval(successes / images, images)
    np.testing.assert_allclose(found, (low, high), atol=6e-5)
    mirrored = wilson_interval(1 - successes / images, images)
    np.testing.assert_allclose(mirrored, (1 - high, 1 - low), atol=6e-5)


@pytest.mark.parametrize("count", [2, 3, 31, 40])
def test_the_interval_over_seeds_is_that_of_students_t(count):
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).normal(size=count)
    expected = stats.t.interval(
        0.95, count - 1, loc=values.mean(), scale=values.std(ddof=1) / count**0.5
    )
    np.testing.assert_allclose(t_interval(values), expected, rtol=1e-3 if count < 32 else 2e-2)


def test_the_paired_interval_is_that_of_the_differences_by_image():
    # 60 images that only the first gets right, 40 that only the other does, 900 that both do.
    right, other = np.ones(1000, bool), np.ones(1000, bool)
    right[:40], other[40:100] = False, False
    # Standard error of a difference of proportions, by hand: sqrt(b + c - (b - c)^2 / n) / n.
    spread = 1.96 * np.sqrt(60 + 40 - 20**2 / 1000) / 1000
    np.testing.assert_allclose(paired_interval(right, other), (0.02 - spread, 0.02 + spread))
    assert paired_interval(right, right) == (0, 0)
