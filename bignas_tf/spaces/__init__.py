"""Search spaces: what can vary, and the genotypes that pick one point of it."""

from bignas_tf.spaces.catalog import SPACES, get_space, register_space, space_from_config
from bignas_tf.spaces.genotype import Gene, Genotype, GenotypeError, Space
from bignas_tf.spaces.mbconv import MBConvSpace, Stage

__all__ = [
    "SPACES",
    "Gene",
    "Genotype",
    "GenotypeError",
    "MBConvSpace",
    "Space",
    "Stage",
    "get_space",
    "register_space",
    "space_from_config",
]
