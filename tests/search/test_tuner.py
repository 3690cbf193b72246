"""KerasTuner around our searches, in one process."""

from __future__ import annotations

import dataclasses
import functools
import json
import threading

import numpy as np
import pytest
from landscapes import noisy, tiny_space

from bignas_tf.search import (
    CoarseToFine,
    Evolution,
    Points,
    RandomSearch,
    Search,
    TabularEvaluator,
    parse_budgets,
    select,
)
from bignas_tf.search.oracle import StrategyOracle, genotype_of, hyperparameters, keras_tuner
from bignas_tf.search.tuner import ChildHyperModel, ChildTuner
from bignas_tf.spaces import Stage, get_space

# KerasTuner asks threads for their names in a way that Python 3.10 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:(currentThread|getName):DeprecationWarning")

SPACE = tiny_space()
BUDGETS = parse_budgets("mmacs:0.06,0.1,0.2")
STRATEGIES = {
    "coarse_to_fine": functools.partial(CoarseToFine, fine_candidates=5, fine_rounds=2),
    "random_search": functools.partial(RandomSearch, evaluations=30),
}
every_strategy = pytest.mark.parametrize("make", STRATEGIES.values(), ids=STRATEGIES)


def search_in(folder, make=STRATEGIES["coarse_to_fine"], space=SPACE):
    points = Points(space, "table", folder / "points.jsonl")
    strategy = make(space, BUDGETS, seed=7)
    return Search(points, BUDGETS, strategy=strategy, folder=folder, write_every=8)


def oracle_of(search, name=""):
    return StrategyOracle(search.points.space, search, search.points, name)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def finished(folder, search, oracle):
    assert oracle.error is None
    assert oracle.finished
    search.arrange()
    search.finish()
    return contents(folder)


def one_process(folder, make=STRATEGIES["coarse_to_fine"], evaluator=None):
    select(
        SPACE,
        evaluator or TabularEvaluator(noisy),
        BUDGETS,
        strategy=make(SPACE, BUDGETS, seed=7),
        folder=folder,
        progress=False,
    )
    return contents(folder)


def metrics(genotype):
    return {"accuracy": noisy(genotype)}


# The oracle --------------------------------------------------------------------------


@every_strategy
def test_a_tuner_evaluates_what_the_search_without_it_does(tmp_path, make):
    search = search_in(tmp_path / "tuned", make)
    oracle, evaluator = oracle_of(search), TabularEvaluator(noisy)
    ChildTuner(SPACE, evaluator, oracle).search()
    alone = TabularEvaluator(noisy)
    assert finished(tmp_path / "tuned", search, oracle) == one_process(
        tmp_path / "alone", make, alone
    )
    assert evaluator.evaluated == alone.evaluated
    assert oracle.evaluated == {"tuner0": len(alone.evaluated)}
    best = oracle.get_best_trials()[0]
    assert best.score == max(map(noisy, alone.evaluated))


@every_strategy
@pytest.mark.parametrize("workers", [2, 7])
def test_results_in_any_order_lead_to_the_same_search(tmp_path, make, workers):
    search = search_in(tmp_path / "many", make)
    oracle, rng = oracle_of(search), np.random.default_rng(workers)
    ongoing = {}
    while not oracle.finished:
        tuner_id = f"worker{rng.integers(workers)}"
        if tuner_id in ongoing and rng.random() < 0.5:
            trial = ongoing.pop(tuner_id)
            genotype = genotype_of(SPACE, trial.hyperparameters)
            oracle.update_trial(trial.trial_id, metrics(genotype))
            assert genotype in search.points  # at once, whatever is still awaited
            trial.status = "COMPLETED"
            oracle.end_trial(trial)
        elif tuner_id not in ongoing:
            trial = oracle.create_trial(tuner_id)
            if trial.status == "RUNNING":
                ongoing[tuner_id] = trial
            else:
                assert ongoing or oracle.finished  # it waits for results, or is over
    assert finished(tmp_path / "many", search, oracle) == one_process(tmp_path / "alone", make)


def test_a_worker_that_comes_again_gets_the_genotype_that_it_died_over(tmp_path):
    oracle = oracle_of(search_in(tmp_path))
    assert oracle.holders == {}
    first, second = (oracle.create_trial(name) for name in ("worker0", "worker1"))
    assert list(oracle.holders) == ["worker0", "worker1"]
    again = oracle.create_trial("worker0")
    assert again.trial_id == first.trial_id != second.trial_id
    oracle.update_trial(first.trial_id, {"accuracy": 0.5})
    # It reported, and died before it could end the trial.
    assert oracle.create_trial("worker0").trial_id not in (first.trial_id, second.trial_id)


def test_workers_get_what_was_asked_in_a_row_until_one_has_nothing_left(tmp_path):
    one_round = functools.partial(Evolution, seed=7, evaluations=20, population=20)
    strategy, asked = one_round(SPACE, BUDGETS), one_round(SPACE, BUDGETS).ask(20)
    assert len(asked) == 20
    oracle = StrategyOracle(SPACE, strategy)

    def answer(tuner_id):
        trial = oracle.create_trial(tuner_id)
        oracle.update_trial(trial.trial_id, {"accuracy": 0.5})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        return asked.index(genotype_of(SPACE, trial.hyperparameters))

    assert [answer("a"), answer("b"), answer("a"), answer("b")] == [0, 8, 1, 9]
    assert [answer("c") for _ in range(4)] == [16, 17, 18, 19]
    # Of two that have six left each the first gives, from its end.
    assert [answer("c") for _ in range(3)] == [7, 15, 6]
    assert [answer("a") for _ in range(4)] == [2, 3, 4, 5]
    assert sorted(answer("b") for _ in range(5)) == [10, 11, 12, 13, 14]
    assert oracle.create_trial("a").status == "STOPPED"


def test_a_result_that_comes_twice_counts_once(tmp_path):
    search = search_in(tmp_path)
    oracle = oracle_of(search)
    trial = oracle.create_trial("worker0")
    oracle.update_trial(trial.trial_id, {"accuracy": 0.5})
    oracle.update_trial(trial.trial_id, {"accuracy": 0.7})
    assert len(search.points) == 1
    assert search.points[genotype_of(SPACE, trial.hyperparameters)]["accuracy"] == 0.5


def test_what_another_chief_asked_is_not_taken_for_an_answer(tmp_path):
    search = search_in(tmp_path)
    oracle, other = oracle_of(search), oracle_of(search_in(tmp_path / "other"))
    oracle.create_trial("worker0")
    stale = other.create_trial("worker0")
    assert oracle.get_trial(stale.trial_id).status == "STOPPED"
    oracle.update_trial(stale.trial_id, {"accuracy": 0.5})
    oracle.end_trial(stale)
    assert len(search.points) == 0
    assert oracle.error is None


def test_what_is_known_becomes_no_trial(tmp_path):
    alone = one_process(tmp_path)
    (tmp_path / "state.json").unlink()
    search = search_in(tmp_path)
    oracle = oracle_of(search)
    assert oracle.create_trial("worker0").status == "STOPPED"
    assert not oracle.trials
    assert finished(tmp_path, search, oracle) == alone


class Broken(CoarseToFine):
    def propose(self, number):
        raise ArithmeticError("no proposal")


@pytest.mark.parametrize(
    ("make", "answer", "message"),
    [
        (Broken, None, "no proposal"),
        (CoarseToFine, {"accuracy": 1.5}, r"`accuracy` must be in \[0, 1\]"),
        (CoarseToFine, {"loss": 1.5}, "Objective value missing"),
    ],
    ids=["strategy", "accuracy", "metrics"],
)
def test_an_error_stops_the_search_and_leaves_the_oracle_free(tmp_path, make, answer, message):
    oracle = oracle_of(search_in(tmp_path, make))
    trial = oracle.create_trial("worker0")
    if answer:
        oracle.update_trial(trial.trial_id, answer)
        oracle.end_trial(trial)
    # With KerasTuner's lock kept this would not come back.
    assert oracle.create_trial("worker1").status == "STOPPED"
    assert oracle.finished
    with pytest.raises((ArithmeticError, ValueError), match=message):
        raise oracle.error


def test_a_search_is_not_over_while_its_last_round_is_proposed(tmp_path):
    begun, go = threading.Event(), threading.Event()

    class Slow(CoarseToFine):
        def propose(self, number):
            if number == 1:
                begun.set()
                go.wait(60)
            return super().propose(number)

    search = search_in(tmp_path, functools.partial(Slow, fine_candidates=5, fine_rounds=1))
    oracle, evaluator = oracle_of(search), TabularEvaluator(noisy)
    worker = threading.Thread(target=ChildTuner(SPACE, evaluator, oracle).search)
    worker.start()
    try:
        assert begun.wait(60)
        seen = [oracle.finished, search.finished]  # as the chief's own thread looks
    finally:
        go.set()
        worker.join()
    assert seen == [False, False]
    assert [oracle.finished, search.finished] == [True, True]
    assert {point["phase"] for point in search.points.points} == {"coarse", "fine1"}


def test_an_evaluation_that_fails_ends_the_tuner(tmp_path):
    def fail(genotype):
        raise OSError("no images")

    oracle = oracle_of(search_in(tmp_path))
    with pytest.raises(keras_tuner.errors.FatalError, match="no images"):
        ChildTuner(SPACE, TabularEvaluator(fail), oracle).search()
    assert len(oracle.trials) == 1


def test_a_result_that_cannot_be_is_an_error_of_the_tuner_too(tmp_path):
    oracle = oracle_of(search_in(tmp_path))
    with pytest.raises(ValueError, match=r"`accuracy` must be in \[0, 1\] for .*Received: 50"):
        ChildTuner(SPACE, TabularEvaluator(lambda _: 50.0), oracle).search()
    assert oracle.finished


def test_a_worker_with_other_weights_is_refused(tmp_path):
    oracle = oracle_of(search_in(tmp_path), "crc32 1")
    with pytest.raises(keras_tuner.errors.FatalError, match="of the chief, crc32 1. Received: cr"):
        ChildTuner(SPACE, TabularEvaluator(noisy), oracle, search="crc32 2").search()
    ChildTuner(SPACE, TabularEvaluator(noisy), oracle, search="crc32 1").search()
    assert oracle.finished


def test_kerastuner_leaves_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    oracle = StrategyOracle(SPACE, CoarseToFine(SPACE, BUDGETS, fine_rounds=0))
    ChildTuner(SPACE, TabularEvaluator(noisy), oracle).search()
    assert oracle.finished
    assert not list(tmp_path.iterdir())


# The space ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bignas", "cifar", "digits"])
def test_hyperparameters_hold_every_genotype_of_a_space(name):
    space = get_space(name)
    found = hyperparameters(space)
    assert genotype_of(space, found) == space.smallest()
    for genotype in [space.biggest(), *space.sample(5, seed=0)]:
        found.values = genotype.as_dict()
        again = keras_tuner.HyperParameters.from_proto(found.to_proto())
        assert genotype_of(space, again) == genotype
    assert json.dumps(found.get_config())  # KerasTuner's own oracles write it down


@pytest.fixture
def as_written():
    """A few steps run faster as they are written than traced."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


# Keras 3.15 converts its variables in a way that NumPy 2 deprecates; eager steps draw
# tf.data's own warning that it is not run eagerly.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Even though the `tf.config")
def test_kerastuners_own_tuners_train_children_from_scratch(tmp_path, as_written):
    import keras

    space = dataclasses.replace(SPACE, stages=(Stage((4, 8), (1, 2), (3,), (2,), 2),))
    hypermodel = ChildHyperModel(space, 10, lambda: keras.optimizers.SGD(0.1))
    tuner = keras_tuner.RandomSearch(
        hypermodel, "accuracy", max_trials=2, seed=1, directory=tmp_path, project_name="children"
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, 10, 10, 1)).astype("float32")
    labels = rng.integers(0, 10, 16)
    tuner.search(images, labels, batch_size=8, epochs=1, verbose=0)
    trials = tuner.oracle.get_best_trials(2)
    assert len({genotype_of(space, trial.hyperparameters) for trial in trials}) == 2
    for trial in trials:
        assert trial.status == "COMPLETED"
        found = hypermodel.build(trial.hyperparameters)
        assert found.spec == genotype_of(space, trial.hyperparameters).spec()
        trained = tuner.load_model(trial)
        assert found.count_params() == trained.count_params()
        scores = trained.predict(images, verbose=0)
        np.testing.assert_allclose(scores.sum(axis=-1), 1, rtol=1e-5)
        changed = [
            np.abs(np.asarray(new) - np.asarray(old)).max()
            for new, old in zip(trained.trainable_variables, found.trainable_variables, strict=True)
        ]
        assert min(changed) > 0  # the two steps reached every weight
