"""Writes the zoo's presets of other people's networks, as their authors configured them.

The configurations and figures are the authors' own; MACs and parameters are counted. Their
weights are not in the zoo: their licences are not this package's.

python zoo/write_published.py
"""

import argparse
import pathlib

ATTENTIVENAS = (
    "Wang et al., AttentiveNAS, CVPR 2021, arXiv 2011.09011; "
    "github.com/facebookresearch/AttentiveNAS"
)
ALPHANET = (
    "Wang et al., AlphaNet, ICML 2021, arXiv 2102.07954; github.com/facebookresearch/AlphaNet"
)
FAIRNAS = "Chu et al., FairNAS, ICCV 2021, arXiv 1907.01845; github.com/fairnas/FairNAS"

# Pixels; widths of stem, seven stages and head; of the stages kernels, expansions, depths; then
# published: MMACs, top-1 % of AttentiveNAS and of AlphaNet, which trained the same networks anew.
ATTENTIVENAS_NETWORKS = {
    "attentivenas_a0": (
        192, (16, 16, 24, 32, 64, 112, 192, 216, 1792),
        (3, 3, 3, 3, 3, 3, 3), (1, 4, 4, 4, 4, 6, 6), (1, 3, 3, 3, 3, 3, 1), 203, 77.3, 77.87,
    ),
    "attentivenas_a1": (
        224, (16, 16, 24, 32, 64, 112, 192, 216, 1984),
        (3, 3, 3, 5, 3, 5, 3), (1, 4, 4, 4, 4, 6, 6), (1, 3, 3, 3, 3, 3, 1), 279, 78.4, 78.94,
    ),
    "attentivenas_a2": (
        224, (16, 16, 24, 32, 64, 112, 200, 224, 1984),
        (3, 3, 3, 3, 3, 5, 3), (1, 4, 5, 4, 4, 6, 6), (1, 3, 3, 3, 3, 4, 1), 317, 78.8, 79.20,
    ),
    "attentivenas_a3": (
        224, (16, 16, 24, 32, 64, 112, 208, 224, 1984),
        (3, 3, 3, 5, 3, 3, 3), (1, 4, 4, 4, 4, 6, 6), (2, 3, 3, 4, 3, 5, 1), 357, 79.1, 79.41,
    ),
    "attentivenas_a4": (
        256, (16, 16, 24, 32, 64, 112, 192, 216, 1984),
        (3, 3, 3, 5, 3, 5, 3), (1, 4, 4, 5, 4, 6, 6), (1, 3, 3, 4, 3, 5, 1), 444, 79.8, 80.01,
    ),
    "attentivenas_a5": (
        256, (16, 16, 24, 32, 72, 112, 192, 216, 1792),
        (3, 3, 3, 5, 3, 3, 3), (1, 4, 5, 4, 4, 6, 6), (1, 3, 3, 3, 4, 6, 1), 491, 80.1, None,
    ),
    # What AlphaNet calls A5 is another network, "alphanet_a5_small" in its configuration.
    "alphanet_a5_small": (
        256, (16, 16, 24, 32, 64, 112, 208, 216, 1984),
        (3, 3, 3, 3, 3, 5, 3), (1, 4, 4, 5, 4, 6, 6), (1, 3, 3, 4, 4, 5, 1), 491, None, 80.29,
    ),
    "attentivenas_a6": (
        288, (16, 16, 24, 32, 64, 112, 216, 224, 1984),
        (3, 3, 3, 3, 3, 5, 3), (1, 4, 6, 5, 4, 6, 6), (1, 3, 3, 4, 4, 6, 1), 709, 80.7, 80.78,
    ),
}  # fmt: skip

# Channels and strides of the 19 choice blocks are the space's.
FAIRNAS_CHANNELS = (32,) * 2 + (40,) * 4 + (80,) * 4 + (96,) * 4 + (192,) * 4 + (320,)
FAIRNAS_STRIDES = (2, 1, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)
# Expansion and kernel of each block; published MMACs and top-1 %.
FAIRNAS_NETWORKS = {
    "fairnas_a": ("37 33 37 63 67 33 33 67 67 35 63 35 35 63 63 67 63 67 65", 388, 75.34),
    "fairnas_b": ("35 33 35 33 63 35 37 33 63 35 33 63 37 33 67 65 67 63 65", 345, 75.10),
    "fairnas_c": ("35 33 37 33 33 33 33 33 33 63 33 33 33 33 67 67 63 63 65", 321, 74.69),
}


def attentivenas_genotype(pixels, widths, kernels, expands, depths):
    """A network of AttentiveNAS's space, from its authors' form of writing it."""
    from bignas_tf.spaces import get_space

    values = {"resolution": pixels, "stem_width": widths[0], "head_width": widths[8]}
    for stage in range(1, 8):
        values[f"stage{stage}_width"] = widths[stage]
        values[f"stage{stage}_depth"] = depths[stage - 1]
        values[f"stage{stage}_kernel"] = kernels[stage - 1]
        values[f"stage{stage}_expand"] = expands[stage - 1]
    return get_space("attentivenas").genotype(values)


def fairnas_spec(choices: str):
    """A FairNAS network: no squeeze-and-excitation, shortcuts only where nothing changes."""
    from bignas_tf.blocks import ConvBlock, HeadBlock, MBConvBlock
    from bignas_tf.spec import NetworkSpec

    blocks = [
        ConvBlock(name="stem", channels=32, strides=2, activation="relu6"),
        MBConvBlock(name="block0", channels=16, expand_ratio=1, activation="relu6"),
    ]
    layers = zip(choices.split(), FAIRNAS_CHANNELS, FAIRNAS_STRIDES, strict=True)
    for index, ((expand, kernel), channels, strides) in enumerate(layers, 1):
        blocks.append(
            MBConvBlock(
                name=f"block{index}", channels=channels, kernel_size=int(kernel), strides=strides,
                expand_ratio=int(expand), activation="relu6",
            )
        )  # fmt: skip
    blocks.append(HeadBlock(name="head", channels=1280, dropout=0.2, activation="relu6"))
    return NetworkSpec((224, 224, 3), tuple(blocks), 1000)


def preset(spec, genotype, origin: str, published: dict) -> dict:
    """The entry of a network that others published."""
    from bignas_tf.cost import count

    cost = count(spec)
    return {
        "spec": spec.to_json(),
        "space": genotype.space.name if genotype else None,
        "genotype": genotype.as_dict() if genotype else None,
        "resolution": spec.input_shape[0],
        "image_size": None,
        "crop": 1.0,  # ours, as the next; not from the authors' evaluation
        "interpolation": "bicubic, antialias",
        "labels": None,
        "input_range": [0, 255],  # the models of the zoo preprocess
        "macs": cost.macs,
        "params": cost.params,
        "ours": False,
        "published": published,
        "origin": origin,
        "weights": None,
        "accuracy": None,
    }


def main() -> None:
    """Writes both files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=pathlib.Path, default=".", help="of the repository")
    zoo = parser.parse_args().root / "bignas_tf" / "zoo"
    from bignas_tf.files import write_json

    entries = {}
    for name, (*genes, mmacs, top1, alphanet) in ATTENTIVENAS_NETWORKS.items():
        genotype = attentivenas_genotype(*genes)
        figures = {"mmacs": mmacs, "params_m": None}
        if top1 is None:
            figures |= {"top1_percent": alphanet, "source": ALPHANET}
        else:
            figures |= {"top1_percent": top1, "source": ATTENTIVENAS}
            if alphanet:
                figures["trained_anew"] = {"top1_percent": alphanet, "source": ALPHANET}
        entries[name] = preset(
            genotype.spec(), genotype, f"The authors' network: {figures['source']}", figures
        )
    write_json(zoo / "attentivenas.json", entries)
    entries = {}
    for name, (choices, mmacs, top1) in FAIRNAS_NETWORKS.items():
        figures = {"mmacs": mmacs, "params_m": None, "top1_percent": top1, "source": FAIRNAS}
        origin = f"The authors' network: {FAIRNAS}"
        entries[name] = preset(fairnas_spec(choices), None, origin, figures)
    write_json(zoo / "fairnas.json", entries)


if __name__ == "__main__":
    main()
