"""Where images come from. Nothing here imports TensorFlow, except TFDS where it is asked for."""

from __future__ import annotations

import numpy as np
from PIL import Image

from bignas_tf.data.errors import DataError
from bignas_tf.data.folder import load_folder
from bignas_tf.data.images import fit
from bignas_tf.data.source import LoadOptions, Source, make_source, optional
from bignas_tf.data.split import Split
from bignas_tf.data.tfds_source import load_tfds


def load_source(
    name: str,
    *,
    image_size: int,
    channels: int = 3,
    test_fraction: float = 0.2,
    seed: int = 0,
    memory_limit_mb: float = 2048,
    on_bad_image: str = "stop",
    encoded: bool = False,
    test_only: bool = False,
) -> Source:
    """Loads a data set as uint8 images of one size.

    Images of another size get their shorter side resized to `image_size` (bicubic, antialiased)
    and keep the centre square.

    Args:
        name: 'digits' (1,797 handwritten digits that scikit-learn brings), 'folder:PATH'
            (PATH/train/CLASS/* and PATH/test/CLASS/*, or PATH/CLASS/*) or 'tfds:NAME'
            (a TensorFlow Datasets name for classification; options are those of `load_tfds`).
        image_size: int, pixels.
        channels: 1 (grey) or 3 (RGB).
        test_fraction: share of the examples that becomes the test split, stratified by class,
            where the data has no test split of its own.
        seed: int in [0, 2**64), of that split.
        memory_limit_mb: MB of decoded images up to which they are kept in memory; beyond it
            they are decoded whenever they are read, in parallel.
        on_bad_image: 'stop' refuses images that cannot be decoded; 'skip' notes them in the
            source's `bad_images` and reads the next one of their class instead, in tests too.
        encoded: whether images are to stay encoded until they are read, however few: what a
            policy with `crop` needs to cut from the whole image.
        test_only: whether only the test split is wanted: `train` is then empty, and none of its
            images is decoded, nor read where the data has a test split of its own.

    Returns:
        The source; `labels` are positions in its `classes`.

    Raises:
        DataError: if an argument or the data cannot be used, or an optional package is missing.
        BrokenImageError: if an image is empty or, where it is decoded here, broken.
    """
    options = LoadOptions(
        image_size,
        channels,
        test_fraction,
        seed,
        memory_limit_mb,
        on_bad_image,
        encoded,
        test_only,
    )
    kind, _, rest = name.partition(":")
    if name == "digits":
        return _load_digits(options)
    if kind == "folder":
        return load_folder(name, rest, options)
    if kind == "tfds" and rest:
        return load_tfds(name, options)
    raise DataError(f"`name` must be 'digits', 'folder:PATH' or 'tfds:NAME'. Received: {name!r}")


def _load_digits(options: LoadOptions) -> Source:
    bundled = optional("sklearn.datasets", "digits", "Source 'digits'").load_digits()
    labels = bundled.target.astype(np.int32)
    grey = np.rint(bundled.images * (255 / 16)).astype(np.uint8)
    images = np.stack(
        [fit(Image.fromarray(image), options.image_size, options.channels) for image in grey]
    )
    rest, chosen = options.split_off_test(labels)
    everything = Split(labels, images=images)
    classes = [str(digit) for digit in bundled.target_names]
    return make_source("digits", classes, everything.take(rest), everything.take(chosen), options)
