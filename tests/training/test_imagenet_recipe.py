"""The ImageNet recipe, its space cut down: on a folder of large JPEGs and on mocked TFDS data."""

import io

import numpy as np
import pytest
from PIL import Image

from bignas_tf.data.crops import crop_box
from bignas_tf.data.operations import operate
from bignas_tf.spaces import get_space
from bignas_tf.training.recipe import get_recipe
from bignas_tf.training.run_data import load_run_data
from bignas_tf.training.trainer import Trainer

tfds = pytest.importorskip("tensorflow_datasets")

# One width, depth and kernel of everything but the head, two resolutions.
SMALL = {gene.name: gene.choices[:1] for gene in get_space("bignas").genes}
SMALL |= {"resolution": (192, 224), "head_width": (1280, 1408)}
FULL = get_recipe("imagenet")
RECIPE = FULL.replace(
    restrict=SMALL,
    schedule={**FULL.schedule, "warmup_epochs": 0},  # whose first step has a rate of 0
    image_size=224,
    batch_size=4,
    epochs=6,
    held_out=4,
    calibration_images=4,
    random_children=1,
)
MOCKED = "tfds:imagenet2012,test=validation,file_format=array_record"
# Eager steps draw tf.data's own warning that it is not run eagerly.
pytestmark = pytest.mark.filterwarnings("ignore:Even though the `tf.config")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """24 JPEG files, up to 1,500 pixels long, no two of one size, and 4 to test."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for number in range(28):
        part, name = ("train", "val")[number >= 24], ("cat", "dog")[number % 2]
        width, height = 700 + 31 * number, 1180 - 29 * number
        coarse = rng.integers(0, 256, (height // 20, width // 20, 3), np.uint8)
        path = root / part / name / f"photograph {number} ü.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((width, height)).save(path, quality=85)
    return f"folder:{root}"


def sizes_of_static_children(trainer, monkeypatch):
    """Collects the resolutions at which the recurring children run."""
    seen, run = [], trainer.supernet.run

    def observed(images, genotype, *arguments, **options):
        seen.append(int(images.shape[1]))
        assert images.shape[1] == images.shape[2] == genotype["resolution"]
        return run(images, genotype, *arguments, **options)

    monkeypatch.setattr(trainer.supernet, "run", observed)
    return seen


def by_hand(image, draws, row, size):
    left, top, right, bottom = crop_box(*image.size, draws["crops"][row], 0.08)
    image = image.convert("RGB").crop((left, top, right, bottom))
    image = image.resize((size, size), Image.Resampling.BICUBIC)
    if draws["flips"][row]:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for operation, value in zip(draws["operations"][row], draws["values"][row], strict=True):
        image = operate(image, operation, float(value), 128)
    return np.asarray(image)


def test_children_of_two_resolutions_train_in_one_step_on_crops_of_large_files(
    folder, tmp_path, monkeypatch, eager
):
    trainer = Trainer(RECIPE, tmp_path, data=folder)
    train = trainer.data.train
    assert train.images is None and len(train) == 20  # encoded, however few
    assert trainer.plan.steps_per_epoch == 5
    seen = sizes_of_static_children(trainer, monkeypatch)
    before = trainer.supernet.weight_arrays()
    assert trainer.run(stop_after=1) == 1
    assert sorted(seen) == [192, 224]
    terms = trainer.loop.rule.plan(RECIPE.seed, 0)
    assert [term.name for term in terms] == ["biggest", "smallest", "random1"]
    after = trainer.supernet.weight_arrays()
    assert any((before[path] != after[path]).any() for path in before)
    batch, draws = trainer.plan.read(0), trainer.plan.draws(0)
    for row, index in enumerate(batch["index"]):
        with Image.open(train.paths[index]) as image:
            np.testing.assert_array_equal(batch["images"][row], by_hand(image, draws, row, 224))


def test_mocked_imagenet_is_read_at_random_and_cropped_before_it_is_resized(monkeypatch):
    with tfds.testing.mock_data(num_examples=12):
        recipe = RECIPE.replace(held_out=0, image_size=64)
        data = load_run_data(recipe, MOCKED)
        assert len(data.source.classes) == 1000
        assert len(data.train) == len(data.source.test) == 12
        indices = np.array([7, 2, 2, 11])
        policy = recipe.policy()
        draws = policy.draw(4, seed=0, epoch=0)
        images = data.train.read(indices, policy.views(draws))
        for row, index in enumerate(indices):
            image = Image.open(io.BytesIO(data.train.records.read(index)))
            np.testing.assert_array_equal(images[row], by_hand(image, draws, row, 64))
        assert data.train.read(indices[:1]).shape == (1, 64, 64, 3)
        assert (data.train.read(indices[1:2]) == data.train.read(indices[2:3])).all()


def test_the_recipe_trains_a_step_on_mocked_imagenet(tmp_path, eager):
    recipe = RECIPE.replace(
        restrict=SMALL | {"resolution": (192,)},
        image_size=64,
        batch_size=2,
        random_children=0,
        held_out=0,
    )
    with tfds.testing.mock_data(num_examples=12):
        trainer = Trainer(recipe, tmp_path, data=MOCKED)
        before = trainer.supernet.weight_arrays()
        assert trainer.run(stop_after=1) == 1
    assert trainer.data.train.images is None
    after = trainer.supernet.weight_arrays()
    (logits,) = [path for path, array in after.items() if array.shape[1:] == (1000,)]
    assert (after[logits] != before[logits]).any()
    assert all(np.isfinite(array).all() for array in after.values())
