import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from bignas_tf.data import AugmentationPolicy, DataError, epoch_order
from bignas_tf.data.operations import operate
from bignas_tf.training.recipe import get_recipe

POLICIES = [
    AugmentationPolicy(),
    AugmentationPolicy(flip=True),
    AugmentationPolicy(shift=3),
    AugmentationPolicy(flip=True, shift=2, fill="constant", value=9),
    AugmentationPolicy(shift=20, fill="constant"),
    AugmentationPolicy(cutout=5, value=77),
    AugmentationPolicy(flip=True, shift=4, cutout=4),
    AugmentationPolicy(flip=True, shift=4, fill="constant", value=200, cutout=40),
    AugmentationPolicy(mixup=1),
    AugmentationPolicy(flip=True, shift=4, cutout=4, mixup=0.2),
    AugmentationPolicy(operations="autoaugment", value=128),
    AugmentationPolicy(flip=True, shift=2, operations="randaugment", layers=3, cutout=3, mixup=1),
]


def one_by_one(policy, images, draws):
    """The policy again: every image alone, padded, cropped, flipped, cut pixel by pixel, mixed."""
    augmented = []
    for i, image in enumerate(images):
        height, width, _ = image.shape
        if policy.shift:
            margin = ((policy.shift,) * 2, (policy.shift,) * 2, (0, 0))
            fill = {"constant_values": policy.value} if policy.fill == "constant" else {}
            padded = np.pad(image, margin, mode=policy.fill, **fill)
            down, right = draws["offsets"][i] + policy.shift
            image = padded[down : down + height, right : right + width]
        if policy.flip and draws["flips"][i]:
            image = np.fliplr(image)
        if policy.operations != "none":
            grey = image.shape[-1] == 1
            pillow = Image.fromarray(np.ascontiguousarray(image[..., 0] if grey else image))
            for operation, value in zip(draws["operations"][i], draws["values"][i], strict=True):
                pillow = operate(pillow, operation, float(value), policy.value)
            image = np.asarray(pillow).reshape(image.shape)
        if policy.cutout:
            image = image.copy()
            top = int(draws["cutouts"][i][0] * height) - policy.cutout // 2
            left = int(draws["cutouts"][i][1] * width) - policy.cutout // 2
            for y in range(max(top, 0), min(top + policy.cutout, height)):
                for x in range(max(left, 0), min(left + policy.cutout, width)):
                    image[y, x] = policy.value
        augmented.append(image)
    if policy.mixup:
        shares = [share / 256 for share in draws["shares"].tolist()]
        augmented = [
            np.floor(share * image + (1 - share) * partner + 0.5).astype(np.uint8)
            for share, image, partner in zip(shares, augmented, augmented[::-1], strict=True)
        ]
    return np.stack(augmented)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("shape", [(50, 12, 12, 3), (51, 8, 13, 1)])
def test_a_batch_equals_its_images_augmented_one_by_one(policy, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    original = images.copy()
    draws = policy.draw(len(images), seed=1, epoch=2)
    augmented = policy.apply(images, draws)
    assert augmented.dtype == np.uint8
    np.testing.assert_array_equal(augmented, one_by_one(policy, images, draws))
    np.testing.assert_array_equal(images, original)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_draw_names_are_the_keys_of_what_is_drawn(policy):
    assert policy.draw_names() == tuple(policy.draw(3, seed=0, epoch=0))


def test_policies_are_plain_json_and_back():
    for policy in POLICIES:
        fields = json.loads(json.dumps(dataclasses.asdict(policy)))
        assert AugmentationPolicy.from_dict(fields) == policy
    assert AugmentationPolicy.from_dict({"shift": 2}) == AugmentationPolicy(shift=2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flop": True}, r"Augmentation fields.*Received: \['flop'\]"),
        ({"flip": 1}, "`flip`.*Received: 1"),
        ({"shift": -1}, "`shift`.*Received: -1"),
        ({"shift": 1.5}, "`shift`.*Received: 1.5"),
        ({"cutout": True}, "`cutout`.*Received: True"),
        ({"fill": "wrap"}, "`fill`.*reflect.*Received: 'wrap'"),
        ({"value": 256}, "`value`.*Received: 256"),
        ({"mixup": -0.1}, r"`mixup`.*\[0, 1\]. Received: -0.1"),
        ({"mixup": 1.1}, "`mixup`.*Received: 1.1"),
        ({"mixup": float("nan")}, "`mixup`.*Received: nan"),
        ({"mixup": True}, "`mixup`.*Received: True"),
        ({"mixup": "0.2"}, "`mixup`.*Received: '0.2'"),
        ({"crop": 1.2}, r"`crop`.*\[0, 1\]. Received: 1.2"),
        ({"crop": 0.08, "shift": 2}, "`shift` must be 0 where there is a `crop`. Received: 2"),
        ({"operations": "autoaugment_v1"}, "`operations`.*autoaugment_v0.*'autoaugment_v1'"),
        ({"operations": None}, "`operations`.*Received: None"),
        ({"layers": 0}, "`layers`.*Received: 0"),
        ({"magnitude": 11}, r"`magnitude`.*\[0, 10\]. Received: 11"),
    ],
)
def test_a_policy_out_of_range_is_refused(fields, message):
    with pytest.raises(DataError, match=message):
        AugmentationPolicy.from_dict(fields)


def test_a_recipe_can_ask_for_mixup():
    recipe = get_recipe("digits").replace(augmentation={"mixup": 0.2})
    assert recipe.policy() == AugmentationPolicy(mixup=0.2)


def test_a_shift_across_a_reflected_image_is_refused():
    policy = AugmentationPolicy(shift=8)
    with pytest.raises(DataError, match="`shift`.*8 pixels. Received: 8"):
        policy.apply(np.zeros((2, 8, 9, 1), np.uint8), policy.draw(2, 0, 0))


def test_draws_of_another_batch_are_refused():
    policy = AugmentationPolicy(flip=True)
    with pytest.raises(DataError, match=r"`draws\['flips'\]`.*Received: 3"):
        policy.apply(np.zeros((2, 8, 8, 1), np.uint8), policy.draw(3, 0, 0))
    with pytest.raises(DataError, match=r"`draws\['flips'\]`.*Received: 0"):
        policy.apply(np.zeros((2, 8, 8, 1), np.uint8), {})


def test_mixup_of_every_pair_of_bytes_is_the_rounded_mean():
    first, second = (x.ravel() for x in np.meshgrid(np.arange(256), np.arange(256)))
    images = np.stack([first, second]).astype(np.uint8).reshape(2, 256, 256, 1)
    policy = AugmentationPolicy(mixup=1.0)
    for share in (0, 1, 100, 128, 255, 256):
        mixed = policy.apply(images, {"shares": np.array([share, 256 - share], np.int32)})
        expected = np.floor((share * first + (256 - share) * second) / 256 + 0.5)
        np.testing.assert_array_equal(mixed[0].ravel(), expected)
        np.testing.assert_array_equal(mixed[1], mixed[0])


@pytest.mark.parametrize("alpha", [1e-9, 0.05, 0.2, 0.4, 0.8, 1])
def test_shares_follow_the_symmetric_beta_distribution(alpha):
    n = 1_000_000
    shares = AugmentationPolicy(mixup=alpha).draw(n, seed=2, epoch=1)["shares"]
    assert shares.dtype == np.int32 and shares.shape == (n,)
    assert shares.min() == 0 and shares.max() == 256
    beta = stats.beta(alpha, alpha)
    deviation = beta.std()
    # 5 standard deviations; rounding to 256ths moves a quantile by half of one at most.
    assert abs(shares.mean() / 256 - 0.5) < 5 * deviation / 1000
    spread = np.mean((shares / 256 - 0.5) ** 2)
    assert abs(spread - deviation**2) < 5 * 0.25 / 1000
    # Every one of the 257 values is as frequent as its interval is probable.
    borders = np.concatenate([[0], beta.cdf((np.arange(256) + 0.5) / 256), [1]])
    expected = n * np.diff(borders)
    counts = np.bincount(shares, minlength=257)
    assert (abs(counts - expected) <= 5 * np.sqrt(expected) + 1e-3).all()
    for level in (0.1, 0.25, 0.6, 0.99):
        low, high = beta.ppf([level - 0.0025, level + 0.0025])
        quantile = np.quantile(shares / 256, level)
        assert low - 0.5 / 256 <= quantile <= high + 0.5 / 256


def test_shares_are_the_same_on_every_machine_and_after_every_upgrade():
    shares = AugmentationPolicy(mixup=0.4).draw(8, seed=1, epoch=2)["shares"]
    assert shares.tolist() == [256, 3, 238, 205, 69, 15, 251, 243]


FULL = AugmentationPolicy(flip=True, shift=3, cutout=4, mixup=1.0, operations="autoaugment")


def test_draws_are_uniform_over_their_ranges():
    draws = FULL.draw(70_000, seed=0, epoch=0)
    for axis in (0, 1):
        values, counts = np.unique(draws["offsets"][:, axis], return_counts=True)
        assert values.tolist() == [-3, -2, -1, 0, 1, 2, 3]
        assert abs(counts - 10_000).max() < 500  # 5 standard deviations
        tenths = np.bincount((draws["cutouts"][:, axis] * 10).astype(int))
        assert len(tenths) == 10 and abs(tenths - 7_000).max() < 400
    assert abs(draws["flips"].mean() - 0.5) < 0.01
    assert draws["shares"].min() == 0 and draws["shares"].max() == 256
    del draws["values"]  # which follow the operations
    together = np.corrcoef(np.column_stack(list(draws.values())).T)
    together[-2:, -2:] = np.eye(2)  # the two operations of a sub-policy belong together
    assert abs(together - np.eye(8)).max() < 0.02


def test_the_draws_of_an_example_do_not_depend_on_how_many_follow():
    few, many = FULL.draw(10, 4, 5), FULL.draw(1000, 4, 5)
    for name in FULL.draw_names():
        np.testing.assert_array_equal(few[name], many[name][:10])


def test_one_kind_of_draw_does_not_change_another():
    full = FULL.draw(20, 4, 5)
    for policy in (
        AugmentationPolicy(flip=True),
        AugmentationPolicy(shift=3),
        AugmentationPolicy(cutout=1),
        AugmentationPolicy(mixup=1),
        AugmentationPolicy(operations="autoaugment"),
    ):
        for name, values in policy.draw(20, 4, 5).items():
            np.testing.assert_array_equal(values, full[name])


@pytest.mark.parametrize("other", [(4, 6), (5, 5)])
def test_draws_differ_between_seeds_and_between_epochs(other):
    first, second = FULL.draw(100, 4, 5), FULL.draw(100, *other)
    assert all((first[name] != second[name]).any() for name in first)
    assert (epoch_order(100, 4, 5) != epoch_order(100, *other)).any()


def test_an_epoch_visits_every_example_once():
    for epoch in range(3):
        assert sorted(epoch_order(101, 9, epoch)) == list(range(101))


def test_every_example_is_equally_likely_at_every_position():
    orders = np.array([epoch_order(5, 0, epoch) for epoch in range(4000)])
    for position in range(5):
        counts = np.bincount(orders[:, position], minlength=5)
        assert abs(counts - 800).max() < 130  # 5 standard deviations
