"""A space whose latency tables the tests make."""

from bignas_tf.spaces import MBConvSpace, Stage

SPACE = MBConvSpace(
    name="one_stage",
    resolution_choices=(6, 8),
    stem_widths=(8,),
    stem_strides=1,
    stages=(Stage((8, 16), (1, 2), (3,), (2,), 1),),
    head_widths=(16, 24),
    classes=10,
    input_channels=1,
)
