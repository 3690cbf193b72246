"""The tabular test double, and the cache that outlives a process."""

from __future__ import annotations

import json
import math

import pytest
from landscapes import OneHeadSpace, noisy, tiny_space

from bignas_tf.search import CachedEvaluator, Points, TabularEvaluator, measure
from bignas_tf.spaces import get_space

SPACE = tiny_space()
GENOTYPES = SPACE.sample(6, seed=0)


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_tabular_evaluator_gives_what_the_table_says():
    table = {genotype: i / 10 for i, genotype in enumerate(GENOTYPES)}
    evaluator = TabularEvaluator(table)
    assert evaluator.split == "table"
    asked = [GENOTYPES[3], GENOTYPES[0]]
    assert evaluator.score(asked) == [{"accuracy": 0.3}, {"accuracy": 0.0}]
    assert evaluator.evaluated == asked


def test_the_tabular_evaluator_refuses_what_the_table_lacks():
    evaluator = TabularEvaluator({GENOTYPES[0]: 0.5})
    with pytest.raises(ValueError, match="`genotypes` must be among the 1 .* Received: Genotype"):
        evaluator.score([SPACE.smallest()])


def test_each_genotype_is_evaluated_once_and_costed():
    inner = TabularEvaluator(noisy)
    cached = CachedEvaluator(inner, SPACE)
    scores = cached.score([*GENOTYPES, *GENOTYPES[:3], GENOTYPES[0]])
    assert inner.evaluated == GENOTYPES
    assert scores == [*scores[:6], *scores[:3], scores[0]]
    for genotype, score in zip(GENOTYPES, scores, strict=False):
        assert score == {
            "accuracy": noisy(genotype),
            "mmacs": measure(genotype, "mmacs"),
            "params_m": measure(genotype, "params_m"),
        }
    assert len(cached) == 6
    assert GENOTYPES[0] in cached
    assert SPACE.smallest() not in cached


def test_a_changed_score_leaves_the_cache_alone():
    cached = CachedEvaluator(TabularEvaluator(noisy), SPACE)
    cached.score(GENOTYPES[:1])[0]["accuracy"] = 0.0
    assert cached.score(GENOTYPES[:1])[0]["accuracy"] == noisy(GENOTYPES[0])


def test_genotypes_of_the_same_network_share_one_evaluation():
    space = tiny_space(OneHeadSpace)
    narrow = space.smallest()
    wide = narrow.replace(head_width=48)
    inner = TabularEvaluator(noisy)
    cached = CachedEvaluator(inner, space)
    first, second = cached.score([wide, narrow])
    assert first == second
    assert inner.evaluated == [narrow]
    assert cached.points[0]["genotype"] == narrow.as_dict()


def test_every_evaluation_is_one_line_at_once(tmp_path):
    path = tmp_path / "new" / "points.jsonl"
    counts = []

    def accuracy(genotype):
        counts.append(len(lines(path)) if path.exists() else 0)
        return noisy(genotype)

    CachedEvaluator(TabularEvaluator(accuracy), SPACE, path).score(GENOTYPES, phase="coarse")
    assert counts == [0, 1, 2, 3, 4, 5]
    assert lines(path)[2] == {
        "genotype": GENOTYPES[2].as_dict(),
        "accuracy": noisy(GENOTYPES[2]),
        "mmacs": measure(GENOTYPES[2], "mmacs"),
        "params_m": measure(GENOTYPES[2], "params_m"),
        "phase": "coarse",
        "split": "table",
    }


def test_a_later_process_evaluates_only_what_is_new(tmp_path):
    path = tmp_path / "points.jsonl"
    before = CachedEvaluator(TabularEvaluator(noisy), SPACE, path).score(GENOTYPES[:4])
    inner = TabularEvaluator(noisy)
    cached = CachedEvaluator(inner, tiny_space(), path)
    assert len(cached) == len(cached.points) == 4
    assert cached.score(GENOTYPES)[:4] == before
    assert inner.evaluated == GENOTYPES[4:]
    assert len(lines(path)) == 6


@pytest.mark.parametrize("kept", [1, 40, -2])
def test_a_half_written_last_line_is_dropped_and_evaluated_again(tmp_path, kept):
    path = tmp_path / "points.jsonl"
    CachedEvaluator(TabularEvaluator(noisy), SPACE, path).score(GENOTYPES)
    whole = path.read_bytes()
    *head, last = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(head) + last[:kept])
    inner = TabularEvaluator(noisy)
    cached = CachedEvaluator(inner, SPACE, path)
    assert len(cached) == 5
    cached.score(GENOTYPES)
    assert inner.evaluated == GENOTYPES[5:]
    assert path.read_bytes() == whole


def test_a_last_line_that_lacks_only_its_end_counts(tmp_path):
    path = tmp_path / "points.jsonl"
    CachedEvaluator(TabularEvaluator(noisy), SPACE, path).score(GENOTYPES[:5])
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    inner = TabularEvaluator(noisy)
    CachedEvaluator(inner, SPACE, path).score(GENOTYPES)
    assert inner.evaluated == GENOTYPES[5:]
    assert [line["accuracy"] for line in lines(path)] == list(map(noisy, GENOTYPES))


@pytest.mark.parametrize("line", [b"{broken", b"[1, 2]", b"", b"\xff"])
def test_a_broken_line_elsewhere_is_refused_by_number(tmp_path, line):
    path = tmp_path / "points.jsonl"
    CachedEvaluator(TabularEvaluator(noisy), SPACE, path).score(GENOTYPES)
    first, _, *rest = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, line, *rest, b""]))
    with pytest.raises(ValueError, match=r"Line 2 of .*points.jsonl must be a JSON object"):
        CachedEvaluator(TabularEvaluator(noisy), SPACE, path)


def test_scores_of_another_split_are_refused(tmp_path):
    path = tmp_path / "points.jsonl"
    CachedEvaluator(TabularEvaluator(noisy, split="held out"), SPACE, path).score(GENOTYPES)
    with pytest.raises(ValueError, match="`split` must be 'held out', .* Received: 'test'"):
        CachedEvaluator(TabularEvaluator(noisy, split="test"), SPACE, path)


def test_genotypes_of_another_space_are_refused(tmp_path):
    path = tmp_path / "points.jsonl"
    CachedEvaluator(TabularEvaluator(noisy), SPACE, path).score(GENOTYPES)
    with pytest.raises(ValueError, match="A genotype of space 'digits' has the genes"):
        CachedEvaluator(TabularEvaluator(noisy), get_space("digits"), path)
    with pytest.raises(ValueError, match="`genotypes` must be of tiny. Received: Genotype"):
        CachedEvaluator(TabularEvaluator(noisy), SPACE).score([get_space("digits").smallest()])


def test_a_line_without_an_accuracy_is_refused(tmp_path):
    path = tmp_path / "points.jsonl"
    path.write_text('{"genotype": {}, "mmacs": 1, "params_m": 1, "phase": ""}\n')
    with pytest.raises(ValueError, match="`points` must be with accuracy, split in .*points"):
        CachedEvaluator(TabularEvaluator(noisy), SPACE, path)


@pytest.mark.parametrize("accuracy", [math.nan, -0.1, 76.5, math.inf])
def test_an_accuracy_outside_0_to_1_is_refused_and_not_kept(tmp_path, accuracy):
    path = tmp_path / "points.jsonl"
    cached = CachedEvaluator(TabularEvaluator(lambda _: accuracy), SPACE, path)
    with pytest.raises(ValueError, match=r"`accuracy` must be in \[0, 1\] for Genotype"):
        cached.score(GENOTYPES)
    assert len(cached) == 0
    assert not path.exists()


def test_other_metrics_come_back_from_the_file_even_if_not_finite(tmp_path):
    class WithLoss(TabularEvaluator):
        def score(self, genotypes):
            losses = [0.25, math.inf]
            scores = zip(super().score(genotypes), genotypes, strict=True)
            return [{**s, "loss": losses[g == GENOTYPES[1]]} for s, g in scores]

    path = tmp_path / "points.jsonl"
    fresh = CachedEvaluator(WithLoss(noisy), SPACE, path).score(GENOTYPES[:2])
    again = CachedEvaluator(TabularEvaluator({}), SPACE, path).score(GENOTYPES[:2])
    assert fresh == again
    assert [score["loss"] for score in again] == [0.25, math.inf]


def test_a_network_that_the_file_has_twice_counts_once(tmp_path):
    path = tmp_path / "points.jsonl"
    points = Points(SPACE, "table", path)
    points.add(SPACE.smallest(), {"accuracy": 0.5})
    line = path.read_text(encoding="utf-8")
    path.write_text(line + line.replace('"accuracy": 0.5', '"accuracy": 0.7'), encoding="utf-8")
    again = Points(SPACE, "table", path)
    assert again.points == points.points
    assert again[SPACE.smallest()]["accuracy"] == 0.5
