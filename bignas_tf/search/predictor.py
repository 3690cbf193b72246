"""A predictor of accuracies from genotypes, for screening candidates before they are evaluated."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bignas_tf.checks import require, require_int
from bignas_tf.optional import require_package
from bignas_tf.spaces import Genotype, Space

FOLDS = 5
FEWEST = 2 * FOLDS  # genotypes, so that every fold holds two


class AccuracyPredictor:
    """Predicts the accuracy of genotypes from those that were evaluated.

    The mean of a Gaussian process, which takes smooth landscapes, and gradient-boosted
    trees, which take the jumps of a coarse grid. They see each gene as the position of its
    value among its choices, from 0 to 1.

    Args:
        space: of the genotypes.
        seed: int, 0 or more; for the same results a predictor of the same seed predicts the
            same.

    Raises:
        ValueError: for a bad seed.
        ModuleNotFoundError: without scikit-learn.

    Reference:
        White et al., "How Powerful are Performance Predictors in Neural Architecture
        Search?", NeurIPS 2021, compares predictors of both kinds.
    """

    def __init__(self, space: Space, seed: int = 0) -> None:
        # Before anything is evaluated.
        require_package("sklearn", "search", "The accuracy predictor")
        require_int("seed", seed, low=0)
        self._space = space
        # scikit-learn takes 32 bits.
        self._seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._elastic = np.array([len(gene.choices) for gene in space.genes]) > 1
        self._model: Any = None

    def fit(self, genotypes: Sequence[Genotype], accuracies: Sequence[float]) -> float:
        """Learns from evaluated genotypes, and tells how well it ranks others.

        Args:
            genotypes: canonical, each once, `FEWEST` at least.
            accuracies: of them.

        Returns:
            Kendall's tau-b between accuracies and predictions, each by a model that did not
            see the genotype (5-fold cross-validation): 1 for the same order, about 0 for
            one that has nothing to do with it. 0 where all accuracies or predictions are
            equal.

        Raises:
            ValueError: for fewer genotypes, or another number of accuracies.
        """
        from sklearn.model_selection import KFold, cross_val_predict

        require(len(genotypes) >= FEWEST, "genotypes", f"at least {FEWEST}", len(genotypes))
        require(
            len(accuracies) == len(genotypes),
            "accuracies", f"{len(genotypes)} in number, as many as genotypes", len(accuracies),
        )  # fmt: skip
        # Whoever evaluated, in whichever order: the fit is the same.
        order = sorted(range(len(genotypes)), key=lambda i: genotypes[i].values)
        features = self._features([genotypes[i] for i in order])
        targets = np.array([accuracies[i] for i in order], np.float64)
        folds = KFold(FOLDS, shuffle=True, random_state=self._seed)
        with _fitting():
            held_out = cross_val_predict(self._new_model(), features, targets, cv=folds)
            self._model = self._new_model().fit(features, targets)
        return kendall_tau(held_out, targets)

    def predict(self, genotypes: Sequence[Genotype]) -> list[float]:
        """Accuracies of genotypes; not confined to [0, 1].

        Raises:
            RuntimeError: before `fit`.
        """
        if self._model is None:
            raise RuntimeError("The predictor has not learned from any results")
        # In the last digits a prediction depends on what is predicted with it.
        return [round(float(v), 9) for v in self._model.predict(self._features(genotypes))]

    def _features(self, genotypes: Sequence[Genotype]) -> np.ndarray:
        """Float64 `(genotypes, elastic genes)`, 0..1."""
        last = np.array([len(gene.choices) - 1 for gene in self._space.genes])[self._elastic]
        positions = np.array([self._space.encode(genotype) for genotype in genotypes])
        return positions[:, self._elastic] / last

    def _new_model(self) -> Any:
        from sklearn.ensemble import GradientBoostingRegressor, VotingRegressor
        from sklearn.gaussian_process import GaussianProcessRegressor, kernels

        kernel = kernels.ConstantKernel() * kernels.RBF() + kernels.WhiteKernel()
        smooth = GaussianProcessRegressor(kernel, normalize_y=True, random_state=self._seed)
        trees = GradientBoostingRegressor(
            n_estimators=50, learning_rate=0.2, random_state=self._seed
        )
        return VotingRegressor([("smooth", smooth), ("trees", trees)])


def kendall_tau(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Kendall's tau-b of two lists; 0 where one of them is constant or has one element.

    Reference:
        Kendall, "The Treatment of Ties in Ranking Problems", Biometrika 33(3), 1945.
    """
    from scipy.stats import kendalltau

    tau = float(kendalltau(a, b).statistic) if len(a) > 1 else 0.0
    return tau if math.isfinite(tau) else 0.0


@contextlib.contextmanager
def _fitting() -> Iterator[None]:
    """Within it a kernel's parameter may end at its bound, as pure noise has it.

    One thread: the matrices are small, and more threads would only wait for each other.
    """
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
