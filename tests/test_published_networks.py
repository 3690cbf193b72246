"""The file of published networks: nothing is missing, and what it says is counted.

The other networks of the file are counted in `test_cost.py`, BigNAS-S to XL in
`zoo/test_zoo.py`.
"""

import json
import pathlib

import pytest
from networks import mobilenet_v2, mobilenet_v3_large

from bignas_tf.cost import count

FIXTURE = pathlib.Path(__file__).parent / "fixtures" / "published_networks.json"
PUBLISHED = json.loads(FIXTURE.read_text(encoding="utf-8"))
COUNTS = {"mmacs", "params_m"}
GENES = {"name", "resolution", "width", "depth", "kernel_size"}
BARE = "mmacs_without_shortcut_convs"
NAMES = {
    "attentivenas": ["A0", "A1", "A2", "A3", "A5", "A5_small", "min", "max"],
    "fairnas": ["A", "C"],
    "bignas": ["smallest", "biggest"],
}
FIELDS = {
    "attentivenas": GENES | COUNTS | {"expand_ratio", "published_mmacs", BARE},
    "fairnas": COUNTS | {"name", "layers"},
    "bignas": GENES | COUNTS | {BARE, "params_m_without_shortcut_convs"},
}
SINGLE = {
    "efficientnet_b0": COUNTS,
    "mobilenet_v2": {"params", "published_mmacs"},
    "mobilenet_v3_large": {"published_mmacs", "published_params_m"},
    "mnasnet_a1": {"published_mmacs", "published_params_m"},
}


def test_the_file_has_every_network_with_every_field():
    assert set(PUBLISHED) == {"note", *NAMES, *SINGLE}
    for group, names in NAMES.items():
        networks = PUBLISHED[group]["networks"]
        assert set(PUBLISHED[group]) == {"source", "networks"}
        assert [network["name"] for network in networks] == names
        assert all(set(network) == FIELDS[group] for network in networks)
    for name, fields in SINGLE.items():
        assert set(PUBLISHED[name]) == {"source", *fields}


def test_only_the_bounds_of_attentivenas_lack_figures_of_their_authors():
    networks = PUBLISHED["attentivenas"]["networks"]
    for field in ("published_mmacs", BARE):
        lacking = [network["name"] for network in networks if network[field] is None]
        assert lacking == ["min", "max"]


@pytest.mark.parametrize(
    ("name", "spec", "tolerance"),
    [("mobilenet_v2", mobilenet_v2, 0.005), ("mobilenet_v3_large", mobilenet_v3_large, 0.02)],
)
def test_mobilenets_have_nearly_their_published_cost(name, spec, tolerance):
    published, cost = PUBLISHED[name], count(spec())
    assert cost.mmacs == pytest.approx(published["published_mmacs"], rel=tolerance)
    if "published_params_m" in published:
        assert cost.params_m == pytest.approx(published["published_params_m"], rel=tolerance)
