"""Elastic primitive layers: weights of the biggest child, any smaller one by call.

Sizes may be Python ints (one trace each), int32 scalars (one trace for all; on
TensorFlow) or, with `masked=True`, either of the two applied as 0/1 masks to weights of
full size, so that all shapes are static and the output is zero beyond its channels.
"""

from bignas_tf.layers.convolution import ElasticConv2D, ElasticDepthwiseConv2D
from bignas_tf.layers.dense import ElasticDense
from bignas_tf.layers.normalization import ElasticBatchNormalization

__all__ = [
    "ElasticBatchNormalization",
    "ElasticConv2D",
    "ElasticDense",
    "ElasticDepthwiseConv2D",
]
