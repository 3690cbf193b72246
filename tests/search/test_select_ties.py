"""The driver: equal accuracies, and results that are known beforehand."""

from __future__ import annotations

import json

from landscapes import noisy, tiny_space

from bignas_tf.search import (
    CachedEvaluator,
    CoarseToFine,
    RandomSearch,
    TabularEvaluator,
    parse_budgets,
    select,
)

SPACE = tiny_space()
BUDGETS = parse_budgets("mmacs:0.06,0.1,0.2")


class WithLoss(TabularEvaluator):
    """Equal accuracies, unequal losses; of some it is not a number."""

    def score(self, genotypes):
        (metrics,) = super().score(genotypes)
        bad = genotypes[0]["head_width"] == 48
        return [metrics | {"loss": float("nan") if bad else 1 - noisy(genotypes[0])}]


def search(folder, evaluator, strategy=None):
    strategy = strategy or CoarseToFine(SPACE, BUDGETS, fine_candidates=5, fine_rounds=2)
    return select(SPACE, evaluator, BUDGETS, strategy=strategy, folder=folder, progress=False)


def test_of_two_as_accurate_the_one_of_lower_loss_is_chosen(tmp_path):
    evaluator = WithLoss(lambda _: 0.5)
    selected = search(tmp_path, evaluator)
    for entry, budget in zip(selected, BUDGETS, strict=True):
        within = [g for g in evaluator.evaluated if budget.allows(g) and g["head_width"] != 48]
        assert entry["genotype"] == max(within, key=noisy).as_dict()
    assert search(tmp_path, TabularEvaluator({})) == selected
    told = json.loads((tmp_path / "state.json").read_text(encoding="utf-8"))["told"]
    assert {len(result) for result in told} == {2, 3}


def test_a_higher_accuracy_wins_whatever_its_loss(tmp_path):
    evaluator = WithLoss(lambda genotype: 0.6 if genotype["head_width"] == 48 else 0.5)
    *_, largest = search(tmp_path, evaluator)
    assert largest["accuracy"] == 0.6


def test_a_strategy_that_knows_every_result_beforehand_evaluates_nothing(tmp_path):
    known = [g for g in SPACE.all_genotypes() if any(b.allows(g) for b in BUDGETS)]
    cached = CachedEvaluator(TabularEvaluator(noisy), SPACE, tmp_path / "points.jsonl")
    strategy = RandomSearch(SPACE, BUDGETS)
    strategy.tell(known, cached.score(known))
    selected = search(tmp_path, TabularEvaluator({}), strategy)
    for entry, budget in zip(selected, BUDGETS, strict=True):
        assert entry["accuracy"] == max(noisy(g) for g in known if budget.allows(g))
