"""`folder:PATH`: one folder per class."""

from __future__ import annotations

import collections
import os
import warnings
from pathlib import Path

import numpy as np

from bignas_tf.data.errors import BrokenImageError, DataError
from bignas_tf.data.images import EMPTY, SUFFIXES, is_image
from bignas_tf.data.source import LoadOptions, Source, decoded, make_source
from bignas_tf.data.split import Split

TEST_FOLDERS = ("test", "val", "validation")

Files = list[tuple[str, int]]  # path and label


def load_folder(name: str, path: str, options: LoadOptions) -> Source:
    """Reads PATH/train/CLASS/* with PATH/test/CLASS/*, or splits PATH/CLASS/*.

    Instead of test/, val/ or validation/ may hold the test images; the first of the three that
    exists is used. Hidden files are ignored; what else in a class folder has no image suffix is
    left out with a warning that counts it.

    Args:
        name: the source's name.
        path: the folder.
        options: as `load_source`'s arguments.

    Raises:
        DataError: if the folder does not hold a data set.
        BrokenImageError: if an image is empty or, where images are decoded to memory, broken.
    """
    left_out: collections.Counter[str] = collections.Counter()
    root = Path(path).expanduser().absolute()  # files are read later, maybe from elsewhere
    if not path or not root.is_dir():
        raise DataError(f"`{name}` must name an existing folder. Received: '{path}'")
    if not (root / "train").is_dir():
        classes, files = _scan(root, left_out)
        rest, chosen = options.split_off_test(np.array([label for _, label in files], np.int32))
        train, test = [files[i] for i in rest], [files[i] for i in chosen]
    else:
        classes, train = _scan(root / "train", left_out)
        tests = [root / folder for folder in TEST_FOLDERS if (root / folder).is_dir()]
        if not tests:
            raise DataError(
                f"'{root}' must hold one of {list(TEST_FOLDERS)} beside train; to split train "
                f"itself, name it: 'folder:{root / 'train'}'. Received: {sorted(os.listdir(root))}"
            )
        test_classes, test = _scan(tests[0], left_out)
        if test_classes != classes:
            only = (
                sorted(set(classes) - set(test_classes)),
                sorted(set(test_classes) - set(classes)),
            )
            raise DataError(
                f"train and {tests[0].name} of '{root}' must have the same classes. "
                f"Received: only in train {only[0]}, only in {tests[0].name} {only[1]}"
            )
        if options.test_only:
            train = []
    if left_out:
        warnings.warn(
            f"'{root}' has in its class folders what is left out, not being among "
            f"{list(SUFFIXES)}: {_listed(left_out)}",
            UserWarning,
            stacklevel=3,
        )
    if options.bad_images is None:
        _refuse_empty(train + test)
    in_memory = options.in_memory(len(train) + len(test))
    return make_source(
        name,
        classes,
        _split(train, options, in_memory, "train"),
        _split(test, options, in_memory, "test"),
        options,
        files=[file[len(str(root)) :].replace(os.sep, "/") for file, _ in train + test],
    )


def _scan(root: Path, left_out: collections.Counter[str]) -> tuple[list[str], Files]:
    with os.scandir(root) as entries:
        classes = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    if len(classes) < 2:
        raise DataError(
            f"'{root}' must hold at least 2 folders, one for each class. Received: {classes}"
        )
    files: Files = []
    for label, class_name in enumerate(classes):
        images, others = _images(root / class_name)
        if not images:
            raise DataError(
                f"Class folder '{root / class_name}' must hold images {list(SUFFIXES)}. "
                f"Received: {_listed(others) or 'none'}"
            )
        left_out += others
        files += [(image, label) for image in images]
    return classes, files


def _images(folder: Path) -> tuple[list[str], collections.Counter[str]]:
    """The images, and how many of which kind the other entries are."""
    images: list[str] = []
    others: collections.Counter[str] = collections.Counter()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                others["folders"] += 1
            elif not is_image(entry.name):
                others[Path(entry.name).suffix.lower() or "no suffix"] += 1
            else:
                images.append(entry.path)
    return sorted(images), others


def _refuse_empty(files: Files) -> None:
    for path, _ in files:
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            raise BrokenImageError(path, EMPTY)


def _listed(counts: collections.Counter[str]) -> str:
    return ", ".join(f"{kind}: {count}" for kind, count in counts.most_common())


def _split(files: Files, options: LoadOptions, in_memory: bool, title: str) -> Split:
    paths = tuple(path for path, _ in files)
    labels = np.array([label for _, label in files], np.int32)
    split = Split(
        labels,
        paths=paths,
        image_size=options.image_size,
        channels=options.channels,
        bad_images=options.bad_images,
    )
    return decoded(split, title) if in_memory else split
