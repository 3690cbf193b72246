"""Strategies: what to evaluate next. They know nothing of weights, images or files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from bignas_tf.search.objective import Objective
from bignas_tf.spaces import Genotype


class Strategy(Protocol):
    """Proposes genotypes and hears what they are worth."""

    @property
    def objectives(self) -> Sequence[Objective]:
        """What is searched for, and what the front of the results is of."""
        ...

    @property
    def phase(self) -> str:
        """What the genotypes asked last are for."""
        ...

    @property
    def planned(self) -> int:
        """Evaluations of the whole search, past ones included; an upper bound."""
        ...

    @property
    def waiting(self) -> tuple[Genotype, ...]:
        """Genotypes that are proposed, asked or not, and whose results are not told yet."""
        ...

    @property
    def told(self) -> tuple[Genotype, ...]:
        """Genotypes whose results are known, in the order of the first telling."""
        ...

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to ask, as far as the last `ask` or `tell` knows."""
        ...

    @property
    def screenings(self) -> Sequence[Mapping[str, Any]]:
        """What a predictor did in each round, as in `Screening.reports`; may be empty."""
        ...

    def ask(self, n: int) -> list[Genotype]:
        """Up to `n` canonical genotypes, none of them asked before.

        None are left when the strategy is finished or waits to be told results.
        """
        ...

    def tell(self, genotypes: Sequence[Genotype], metrics: Sequence[Mapping[str, float]]) -> None:
        """Takes results, also of genotypes that were not asked for."""
        ...

    def state(self) -> dict[str, Any]:
        """All that the next proposals depend on, as plain JSON."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues from a state: asks what would have been asked next.

        Raises:
            ValueError: if it is the state of another search.
        """
        ...


def prefix_order(genotype: Genotype) -> tuple[str, ...]:
    """A key that sorts genotypes by resolution, then block by block.

    Children that begin alike then follow each other, and share the work of their beginning
    (`bignas_tf.shared_prefix`).
    """
    spec = genotype.spec()
    return (repr(spec.input_shape), *map(repr, spec.blocks))
