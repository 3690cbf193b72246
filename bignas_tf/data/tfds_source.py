"""`tfds:NAME`: data sets of TensorFlow Datasets."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from bignas_tf.data.errors import DataError
from bignas_tf.data.source import LoadOptions, Source, decoded, make_source, optional
from bignas_tf.data.split import Split
from bignas_tf.files import replacing

_OPTIONS = ("train", "test", "data_dir", "file_format")
TEST_SPLITS = ("test", "validation")


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsRecords:
    """Encoded images of one split.

    Args:
        title: of the split, for errors.
        fetch: returns the encoded image at a position of the split.
        positions: int64 `(n,)`, which of them these are.
    """

    title: str
    fetch: Callable[[int], bytes]
    positions: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    def name(self, position: int) -> str:
        """Returns the split and the position in it."""
        return f"{self.title}[{self.positions[position]}]"

    def read(self, position: int) -> bytes:
        """Returns an image as it is stored."""
        return self.fetch(int(self.positions[position]))

    def take(self, positions: np.ndarray) -> TfdsRecords:
        """Returns the images at `positions`."""
        return dataclasses.replace(self, positions=self.positions[positions])


def load_tfds(name: str, options: LoadOptions) -> Source:
    """Reads `tfds:NAME[,OPTION=VALUE]*`, which is downloaded and prepared if it is not yet.

    Options are `train` and `test`, splits such as train[:90%] (without `test`: test, then
    validation, whichever has labels, else a part of `train`), `data_dir`, and `file_format`, the
    format to prepare it in. One with random access, array_record, is needed where the images do
    not fit into memory; their labels are then read once and kept beside them. What is prepared in
    another format already needs a `data_dir` of its own for it.

    Args:
        name: the source's name.
        options: as `load_source`'s arguments.

    Raises:
        DataError: if there is no such data set, or it is not one of labelled images.
        BrokenImageError: if an image is decoded here and broken.
    """
    tfds = optional("tensorflow_datasets", "tfds", f"Source '{name}'")
    dataset, given = _parse(name)
    arguments = {key: given[key] for key in ("data_dir", "file_format") if key in given}
    try:
        builder = tfds.builder(dataset, **arguments)
    except (ValueError, tfds.core.registered.DatasetNotFoundError) as error:
        reason = str(error).splitlines()[0]
        if "file_format" in given:
            reason += "; a `data_dir` holds it in one format only."
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
    if "train" not in given and "train" not in splits:
        raise DataError(f"`{name}` must have a split 'train'. Received: {splits}")
    reader = _Reader(tfds, builder, f"tfds:{dataset}", options)
    tests = [given["test"]] if "test" in given else [s for s in TEST_SPLITS if s in splits]
    test = next(filter(_labelled, map(reader.read, tests)), None)
    if test is None and "test" in given:
        raise DataError(f"`test` of '{name}' must have labels. Received: a split without")
    if test is not None and options.test_only:
        train = test.take(np.arange(0))
    else:
        train = reader.read(given.get("train", "train"))
        if not _labelled(train):
            raise DataError(f"`train` of '{name}' must have labels. Received: a split without")
    if test is None:
        rest, chosen = options.split_off_test(train.labels)
        train, test = train.take(rest), train.take(chosen)
    train, test = reader.in_memory(train, "train"), reader.in_memory(test, "test")
    return make_source(name, info.features[keys[1]].names, train, test, options)


def _labelled(split: Split) -> bool:
    """Whether it is no competition's test split, which has labels of -1."""
    return bool(split.labels.min() >= 0)


def _parse(name: str) -> tuple[str, dict[str, str]]:
    """The data set's name and the options."""
    dataset, *rest = re.split(rf",(?=(?:{'|'.join(_OPTIONS)})=)", name.partition(":")[2])
    if "," in dataset or not dataset:
        raise DataError(
            f"`name` must be 'tfds:NAME' with options among {list(_OPTIONS)}, such as "
            f"'tfds:NAME,train=train[:90%]'. Received: {name!r}"
        )
    return dataset, dict(option.split("=", 1) for option in rest)


@dataclasses.dataclass(frozen=True, eq=False)
class _Reader:
    """Reads splits of one data set."""

    tfds: Any
    builder: Any
    title: str
    options: LoadOptions

    def read(self, split: str) -> Split:
        """The examples of a split, encoded."""
        image, label = self.builder.info.supervised_keys
        formats = type(self.builder.info.file_format).with_random_access()
        random_access = self.builder.info.file_format in formats
        try:
            if random_access:
                fetch, labels = self._random_access(split, image, label)
            else:
                fetch, labels = self._all(split, image)
        except (ValueError, KeyError) as error:
            if isinstance(error, DataError):
                raise
            reason = " ".join(str(error).split())
            raise DataError(f"`{self.title}` cannot be read: {reason} Received: {split}") from error
        if not len(labels):
            raise DataError(f"Split '{split}' of `{self.title}` must hold examples. Received: none")
        return Split(
            labels,
            image_size=self.options.image_size,
            channels=self.options.channels,
            records=TfdsRecords(f"{self.title}/{split}", fetch, np.arange(len(labels))),
            bad_images=self.options.bad_images,
        )

    def in_memory(self, split: Split, title: str) -> Split:
        """A split, decoded if it fits into memory."""
        return decoded(split, title) if self.options.in_memory(len(split)) else split

    def _all(self, split: str, key: str) -> tuple[Callable[[int], bytes], np.ndarray]:
        # TensorFlow's JPEG decoder is not exact: take the bytes.
        decoders = {key: self.tfds.decode.SkipDecoding()}
        examples = self.builder.as_dataset(split=split, as_supervised=True, decoders=decoders)
        contents, labels, held = [], [], 0
        for content, label in self.tfds.as_numpy(examples):
            contents.append(content)
            labels.append(label)
            held += len(content)
            limit = self.options.memory_limit_mb * 1e6
            fits = held <= limit if self.options.encoded else self.options.in_memory(len(labels))
            if not fits:
                raise DataError(
                    f"`{self.title}` must fit into {self.options.memory_limit_mb:g} MB (in Python "
                    "the argument `memory_limit_mb`), or be prepared once more, for random access: "
                    f"'{self.title},file_format=array_record,data_dir=NEW_FOLDER', or a part of it "
                    f"be taken: '{self.title},train=train[:10%]'. Received: '{split}', which alone "
                    "is larger"
                )
        return contents.__getitem__, np.array(labels, np.int32)

    def _random_access(
        self, split: str, image: str, label: str
    ) -> tuple[Callable[[int], bytes], np.ndarray]:
        decoders = {image: self.tfds.decode.SkipDecoding()}
        examples = self.builder.as_data_source(split, decoders=decoders)
        return (lambda position: examples[position][image]), self._labels(split, examples, label)

    def _labels(self, split: str, examples: Any, key: str) -> np.ndarray:
        """Reads every example once: the labels are nowhere else."""
        digest = hashlib.sha256(json.dumps([split, self._prepared()]).encode()).hexdigest()[:12]
        kept = Path(self.builder.data_dir) / f"bignas_tf-labels-{digest}.npy"
        with contextlib.suppress(OSError, ValueError):
            labels = np.load(kept)
            if labels.shape == (len(examples),) and labels.dtype == np.int32:
                return labels
        progress = tqdm.trange(len(examples), desc=f"labels of {split}", disable=None)
        labels = np.array([examples[i][key] for i in progress], np.int32)
        with contextlib.suppress(OSError), replacing(kept) as temporary:  # it may be read-only
            with temporary.open("wb") as file:
                np.save(file, labels)
        return labels

    def _prepared(self) -> list[Any]:
        """What changes where the data set is another version or was prepared again."""
        info = self.builder.info
        found: list[Any] = [info.full_name]
        for name, split in sorted(info.splits.items()):
            found.append([name, [int(length) for length in split.shard_lengths]])
            for path in map(Path, split.filepaths):
                if path.is_file():  # a part that is not read may be absent
                    stat = path.stat()
                    found.append([path.name, stat.st_size, stat.st_mtime_ns])
        return found
