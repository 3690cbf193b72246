r"""Converts a Keras model to TFLite and checks the file against the model on real images.

Example:
  python export/convert_tflite.py --model=child.keras --quantization=int8 \
    --images=photos --output=child_int8.tflite

Beside the file appears a JSON with its hash, its input and output, the figures of the check,
and what the JSON beside child.keras says. A file that does not compute what the model
computes is not kept.
"""

import types

from absl import flags

from bignas_tf.commands import convert
from bignas_tf.deploy.formats import TFLITE
from bignas_tf.deploy.script import run_script

_MODEL = flags.DEFINE_string(
    "model",
    None,
    "A .keras file or a zoo name such as bignascifar_s or bignasmodel_m (a network without weights "
    "gets random ones: for latency only).",
    required=True,
)
_OUTPUT = flags.DEFINE_string("output", None, "The .tflite file to write.", required=True)
_QUANTIZATION = flags.DEFINE_enum(
    "quantization",
    "float32",
    convert.QUANTIZATIONS,
    "What the file stores and computes in.",
    case_sensitive=False,
)
_IMAGES = flags.DEFINE_string(
    "images",
    None,
    "Folder of images to check with, and to calibrate int8 with. Without it, images that come "
    "with scikit-learn.",
)
_INPUT_RANGE = flags.DEFINE_list(
    "input_range",
    None,
    "The model's values of black and white, for example 0,255 (default: what the JSON beside "
    "the model says, else -1,1).",
)
_IO = flags.DEFINE_enum("io", None, ["int8", "uint8"], "Input and output of int8 (default: int8).")
_PREPROCESSING = flags.DEFINE_enum(
    "preprocessing",
    None,
    ["inside", "outside"],
    "inside: the file takes pixels of 0 to 255; outside: -1 to 1 (default: as the model).",
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an existing output.")
_FLAGS = (
    _MODEL, _OUTPUT, _QUANTIZATION, _IMAGES, _INPUT_RANGE, _IO, _PREPROCESSING, _OVERWRITE,
)  # fmt: skip


def main() -> None:
    """Does what `bignas convert --model` does."""
    given = {flag.name: flag.value for flag in _FLAGS}
    convert.main(types.SimpleNamespace(workdir=None, data=None, format=TFLITE, **given))


if __name__ == "__main__":
    run_script(main)
