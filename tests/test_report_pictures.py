"""The pictures of the page that answer to the pointer, and those of the children."""

import math
import re
import sys

import pytest
from report_fixture import (
    CHILDREN,
    SPACE,
    dump_lines,
    genotype,
    page_of,
    write_minimal_run,
    write_run,
    write_selected,
)

from bignas_tf.cost import profile

CIRCLE = re.compile(
    r'<circle class="(\w+)" cx="([\d.]+)" cy="([\d.]+)" r="\d+"><title>(.*?)</title>', re.DOTALL
)
RECT = re.compile(r'<rect class="(\w+)" x="62" y="([\d.]+)" width="([\d.]+)" height="(\d+)"')


def point(mmacs, accuracy, resolution=8, **more):
    return {"genotype": genotype(resolution), "mmacs": mmacs, "accuracy": accuracy, **more}


@pytest.fixture
def circles(tmp_path):
    """Draws points, among them three on the front: head of a title -> kind, x, y, lines."""

    def draw(points):
        write_minimal_run(tmp_path)
        dump_lines(tmp_path / "select" / "points.jsonl", points)
        page_of(tmp_path)
        html = (tmp_path / "report.html").read_text(encoding="utf-8")
        found = {}
        for kind, x, y, text in CIRCLE.findall(html):
            head, *lines = text.split("\n")
            found[head] = kind, float(x), float(y), lines
        return found

    return draw


def test_every_point_tells_its_genotype_and_figures(circles):
    extra = {"params_m": 0.0312, "loss": 0.25, "nothing": "nan", "phase": "fine1", "split": "a"}
    found = circles([point(0.3, 0.9, resolution=6), point(0.4, 0.93, resolution=7, **extra)])
    assert found["0.4 MMACs, 93.00 % held-out"][3] == [
        "parameters: 31,200",
        "loss: 0.25",
        "evaluation: 2, fine1",
        "resolution: 7",
        "stem: 16",
        "stage1: 16×2 k3 e2",
        "stage2: 32×2 k3 e3",
        "stage3: 56×2 k3 e3",
        "head: 128",
    ]
    assert found["0.3 MMACs, 90.00 % held-out"][3][0] == "evaluation: 1"


def test_points_of_the_front_and_chosen_ones_are_told_apart(circles):
    found = circles(
        [
            point(0.3, 0.95, resolution=6),
            point(0.4, 0.94, resolution=7),
            point(0.5124, 0.975, resolution=CHILDREN["m"]["resolution"]),
        ]
    )
    kinds = {head: kind for head, (kind, *_) in found.items()}
    assert kinds == {
        "0.3 MMACs, 95.00 % held-out": "front",
        "0.4 MMACs, 94.00 % held-out": "other",
        "m: 0.5124 MMACs, 97.50 % held-out": "selected",
    }
    assert list(kinds.values())[-1] == "selected"  # on top


def test_targets_lie_where_the_axes_put_their_points(circles):
    # MMACs from 0.1 to 1.6: a logarithmic axis.
    figures = [(0.1, 0.95), (0.4, 0.955), (0.8, 0.97), (1.6, 0.985)]
    found = circles([point(m, a, resolution=i) for i, (m, a) in enumerate(figures, start=20)])
    places = sorted((x, y) for _, x, y, _ in found.values())
    (x0, y0), *_, (x1, y1) = places
    for (mmacs, accuracy), (x, y) in zip(figures, places, strict=True):
        share = math.log(mmacs / 0.1) / math.log(16)
        assert x == pytest.approx(x0 + share * (x1 - x0), abs=0.11)
        assert y == pytest.approx(y0 + (accuracy - 0.95) / 0.035 * (y1 - y0), abs=0.11)
    assert y1 < y0  # down is up in an SVG


def test_a_point_off_the_scale_has_no_target(tmp_path):
    write_run(tmp_path)
    page = page_of(tmp_path)
    drawn = len(CIRCLE.findall((tmp_path / "report.html").read_text(encoding="utf-8")))
    (below,) = re.findall(r"(\d+) evaluated children lie below the scale", page.text)
    assert drawn == 244 - int(below)


def test_accuracy_is_drawn_over_what_else_was_limited_with_a_front_of_its_own(tmp_path):
    write_minimal_run(tmp_path)  # `s` has a limit in size_mb_int8
    points = [
        point(mmacs, accuracy, resolution=resolution)
        for resolution, mmacs, accuracy in (
            (20, 0.5, 0.9),
            (21, 0.25, 0.91),
            (22, 0.75, 0.93),
            (CHILDREN["s"]["resolution"], 0.3, 0.955),
            (23, 0.125, 0.9),
        )
    ]
    dump_lines(tmp_path / "select" / "points.jsonl", points)
    sizes = "size_mb_int8,order\n0.1,1\n0.3,2\n0.2,3\n0.4,4\n,5\n"
    (tmp_path / "select" / "trials.csv").write_text(sizes)
    text = " ".join(page_of(tmp_path).text.split())
    assert "over size_mb_int8 of 4 evaluated children; dotted: the limits." in text
    assert "1 whose size_mb_int8 is not known are left out." in text
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    over_macs, over_size = (
        {
            title.partition(" MMACs")[0]: (kind, float(x))
            for kind, x, _, title in CIRCLE.findall(svg)
        }
        for svg in html.split('<svg class="targets"')[1:]
    )
    assert {name: kind for name, (kind, _) in over_macs.items()} == {
        "0.125": "front", "0.25": "front", "s: 0.3": "selected", "0.5": "other", "0.75": "other"
    }  # fmt: skip
    assert {name: kind for name, (kind, _) in over_size.items()} == {
        "0.5": "front", "0.75": "front", "0.25": "other", "s: 0.3": "selected"
    }  # fmt: skip
    places = [over_size[name][1] for name in ("0.5", "0.75", "0.25", "s: 0.3")]
    steps = [after - before for before, after in zip(places, places[1:], strict=False)]
    assert min(steps) > 0  # 0.1, 0.2, 0.3 and 0.4 MB
    assert max(steps) - min(steps) <= 0.21


def test_a_child_is_drawn_block_by_block(tmp_path):
    write_minimal_run(tmp_path)
    small = {**genotype(8), "stage2_depth": 1, "stage2_width": 24}
    large = {**genotype(12), "stage2_depth": 3, "stage3_kernel": 5}
    figures = CHILDREN["s"]
    chosen = [
        {"name": name, "genotype": genes, **figures, "resolution": genes["resolution"]}
        for name, genes in (("small", small), ("large", large))
    ]
    write_selected(tmp_path, chosen)
    page_of(tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    drawings = dict(re.findall(r'aria-label="(\w+) block by block: [^"]*">(.*?)</svg>', html))
    assert list(drawings) == ["small", "large"]
    lengths, places = {}, {}
    for name, genes in (("small", small), ("large", large)):
        spec = SPACE.genotype(genes).spec()
        titles = re.findall(r"<title>(.*?)</title>", drawings[name])
        assert [title.partition(":")[0] for title in titles] == [b.name for b in spec.blocks]
        rects = [rect for rect in RECT.findall(drawings[name]) if rect[0] == "block"]
        for block, (_, y, length, height) in zip(spec.blocks, rects, strict=True):
            lengths[name, block.name] = float(length) / math.sqrt(block.channels)
            places[name, block.name] = float(y) + int(height) / 2
        counted = profile(spec)
        for title, block in zip(titles, spec.blocks, strict=True):
            cost = counted.blocks[block.name]
            assert title.endswith(f"{cost.mmacs:.3g} MMACs, {cost.params:,} parameters")
        assert f"{genes['resolution'] // 2} px</text>" in drawings[name]  # stage 2 has stride 2
    # One scale for both, the same block in the same row.
    assert max(lengths.values()) == pytest.approx(min(lengths.values()), rel=0.01)
    for (name, block), middle in places.items():
        if name == "small":
            assert middle == places["large", block]
    assert "stage2 3 × 32 k3 e3" in html and "stage2 24 k3 e3" in html
    assert 'height="12"' in drawings["large"]  # a kernel of 5
    # The second and third block of stage 2, which only the large child has, are outlines.
    outlines = [float(y) + int(h) / 2 for k, y, _, h in RECT.findall(drawings["small"])]
    assert places["large", "stage2_block3"] in outlines


def test_the_hypervolume_is_drawn_over_the_evaluations(tmp_path):
    write_minimal_run(tmp_path)
    # Of the rectangle from (0.4, 0.5) to (0.2, 0.9): its corner, then a quarter of it, then half.
    figures = [(0.4, 0.5, "coarse"), (0.2, 0.5, "coarse"), (0.3, 0.7, "fine1"), (0.4, 0.9, "fine1")]
    figures += [(0.3, 0.8, "fine1"), (0.35, 0.6, "fine2")]
    points = [point(m, a, 20 + i, phase=p) for i, (m, a, p) in enumerate(figures)]
    dump_lines(tmp_path / "select" / "points.jsonl", points)
    page = page_of(tmp_path)
    words = [v for tag, name, v in page.attributes if name == "aria-label"]
    expected = 100 * 0.1 * 0.3 / (0.2 * 0.4)  # of the point at 0.3 MMACs and 80 %
    assert f"Hypervolume over 6 evaluations: 25.0 % halfway, {expected:.1f} % at last." in words
    assert "It last grew with evaluation 5 of 6." in page.text


def test_without_a_rectangle_or_moocore_there_is_no_hypervolume(tmp_path, monkeypatch):
    write_minimal_run(tmp_path)
    flat = [point(0.2 + 0.1 * i, 0.5, 20 + i) for i in range(3)]
    dump_lines(tmp_path / "select" / "points.jsonl", flat)
    assert "Hypervolume" not in page_of(tmp_path).text
    dump_lines(tmp_path / "select" / "points.jsonl", [*flat, point(0.9, 0.9, 30)])
    assert "Hypervolume" in page_of(tmp_path).text
    monkeypatch.setitem(sys.modules, "moocore", None)
    text = page_of(tmp_path).text
    assert "Hypervolume" not in text
    said = "is not drawn without moocore; in a checkout of bignas-tf: pip install '.[search]'"
    assert said in " ".join(text.split())
