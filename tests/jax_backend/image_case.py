"""Decoded and resized images, for a comparison of backends.

KERAS_BACKEND=tensorflow python image_case.py FOLDER OUT.npz
"""

import sys

import numpy as np

from bignas_tf.data import load_source
from bignas_tf.evaluation import prepared

SIZE, RESOLUTIONS = 20, (12, 20, 33)  # stored; fed to children


def images(folder) -> dict[str, np.ndarray]:
    test = load_source(f"folder:{folder}", image_size=SIZE, channels=3).test
    resized = {str(resolution): prepared(test, resolution) for resolution in RESOLUTIONS}
    return {"decoded": test.read(np.arange(len(test))), **resized}


if __name__ == "__main__":
    np.savez(sys.argv[2], **images(sys.argv[1]))
