"""Where images come from. Nothing here imports TensorFlow, except TFDS where it is asked for."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from bignas_tf.data.errors import DataError
from bignas_tf.data.folder import load_folder
from bignas_tf.data.images import decode_image, fit
from bignas_tf.data.source import LoadOptions, Source, make_source, optional
from bignas_tf.data.split import Split


def load_source(
    name: str,
    *,
    image_size: int,
    channels: int = 3,
    test_fraction: float = 0.2,
    seed: int = 0,
    memory_limit_mb: float = 2048,
) -> Source:
    """Loads a data set as uint8 images of one size.

    Images of another size get their shorter side resized to `image_size` (bicubic, antialiased)
    and keep the centre square.

    Args:
        name: 'digits' (1,797 handwritten digits that scikit-learn brings), 'folder:PATH'
            (PATH/train/CLASS/* and PATH/test/CLASS/*, or PATH/CLASS/*) or 'tfds:NAME'
            (a TensorFlow Datasets name for classification).
        image_size: int, pixels.
        channels: 1 (grey) or 3 (RGB).
        test_fraction: share of the examples that becomes the test split, stratified by class,
            where the data has no test split of its own.
        seed: int in [0, 2**64), of that split.
        memory_limit_mb: MiB of decoded images up to which a folder is kept in memory; beyond it
            files are decoded whenever they are read. TFDS sources must fit.

    Returns:
        The source; `labels` are positions in its `classes`.

    Raises:
        DataError: if an argument or the data cannot be used, or an optional package is missing.
        BrokenImageError: if an image is empty or, where it is decoded here, broken.
    """
    options = LoadOptions(image_size, channels, test_fraction, seed, memory_limit_mb)
    kind, _, rest = name.partition(":")
    if name == "digits":
        return _load_digits(options)
    if kind == "folder":
        return load_folder(name, rest, options)
    if kind == "tfds" and rest:
        return _load_tfds(name, rest, options)
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


def _load_tfds(name: str, dataset: str, options: LoadOptions) -> Source:
    tfds = optional("tensorflow_datasets", "tfds", f"Source '{name}'")
    try:
        builder = tfds.builder(dataset)
    except (ValueError, tfds.core.registered.DatasetNotFoundError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"`{name}` must name a TFDS data set: {reason} Received: {dataset!r}"
        ) from error
    info = builder.info
    keys = info.supervised_keys
    if not (
        keys is not None
        and isinstance(info.features[keys[0]], tfds.features.Image)
        and isinstance(info.features[keys[1]], tfds.features.ClassLabel)
    ):
        raise DataError(
            f"`{name}` must have an image and a class label as `supervised_keys`. Received: {keys}"
        )
    builder.download_and_prepare()
    # A mocked or hand-made builder may not list its splits: then it has the usual two.
    splits = list(builder.info.splits) or ["train", "test"]
    if "train" not in splits:
        raise DataError(f"`{name}` must have a split 'train'. Received: {splits}")
    train = _read_tfds(tfds, builder, "train", options, name)
    classes = info.features[keys[1]].names
    for candidate in ("test", "validation"):
        if candidate in splits:
            test = _read_tfds(tfds, builder, candidate, options, name)
            if test.labels.min() >= 0:  # a competition's test split has labels of -1
                return make_source(name, classes, train, test, options)
    rest, chosen = options.split_off_test(train.labels)
    return make_source(name, classes, train.take(rest), train.take(chosen), options)


def _read_tfds(tfds: Any, builder: Any, split: str, options: LoadOptions, name: str) -> Split:
    key = builder.info.supervised_keys[0]
    # TensorFlow's JPEG decoder is not exact: take the bytes.
    encoded = builder.as_dataset(
        split=split, as_supervised=True, decoders={key: tfds.decode.SkipDecoding()}
    )
    images, labels = [], []
    for position, (data, label) in enumerate(tfds.as_numpy(encoded)):
        if not options.fits_memory(position + 1):
            raise DataError(
                f"`memory_limit_mb` must hold all of '{name}', which is kept in memory; "
                f"'{split}' alone is larger. Received: {options.memory_limit_mb}"
            )
        where = f"{name}/{split}[{position}]"
        images.append(
            decode_image(where, options.image_size, options.channels, file=io.BytesIO(data))
        )
        labels.append(label)
    if not images:
        raise DataError(f"Split '{split}' of `{name}` must hold examples. Received: none")
    return Split(np.array(labels, np.int32), images=np.stack(images))
