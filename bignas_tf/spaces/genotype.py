"""Genes, genotypes and what every search space can do with them."""

from __future__ import annotations

import abc
import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bignas_tf.checks import is_int, require_int
from bignas_tf.ops import Op
from bignas_tf.spec import NetworkSpec

Restriction = Mapping[str, Sequence[int]]


def as_tuples(value: Any) -> Any:
    """A list, which JSON makes of a tuple, and those in it, as tuples again."""
    return tuple(map(as_tuples, value)) if isinstance(value, (list, tuple)) else value


class GenotypeError(ValueError):
    """A genotype that lies outside its space; the message says which gene and why."""


@dataclasses.dataclass(frozen=True)
class Gene:
    """One thing that varies.

    Attributes:
        name: such as `stage3_width`.
        choices: allowed values, ascending.
        group: the stage or layer that it belongs to, such as `stage3`.
    """

    name: str
    choices: tuple[int, ...]
    group: str


@dataclasses.dataclass(frozen=True)
class Genotype:
    """A point of a space: one value per gene, in the order of `space.genes`."""

    space: Space
    values: tuple[int, ...]

    def __getitem__(self, gene: str) -> int:
        return self.values[self.space.index[gene]]

    def __hash__(self) -> int:
        return hash((self.space.name, self.values))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Genotype):
            return NotImplemented
        return self.values == other.values and self.space == other.space

    def as_dict(self) -> dict[str, int]:
        """Values by gene name."""
        return {gene.name: value for gene, value in zip(self.space.genes, self.values, strict=True)}

    def replace(self, **values: int) -> Genotype:
        """A copy with some genes changed; refused if it leaves the space."""
        return self.space.genotype({**self.as_dict(), **values})

    def spec(self) -> NetworkSpec:
        """The network that this genotype stands for."""
        return self.space.spec(self)

    def __repr__(self) -> str:
        pairs = ", ".join(f"{name}={value}" for name, value in self.as_dict().items())
        return f"Genotype({self.space.name}: {pairs})"


class Space(abc.ABC):
    """A search space: genes, and how a genotype becomes a network.

    Subclasses are frozen dataclasses (spaces compare by value) with a `name` and
    `classes`, and define `genes`, among them `resolution`, `spec` and `all_ops_spec`; where
    recipes may `restrict` them also `with_choices`, and `from_config` where a field is more
    than numbers, texts and tuples of them.
    """

    name: str
    classes: int

    @property
    @abc.abstractmethod
    def genes(self) -> tuple[Gene, ...]:
        """All genes in a fixed order."""

    @abc.abstractmethod
    def spec(self, genotype: Genotype) -> NetworkSpec:
        """The network of `genotype`."""

    @abc.abstractmethod
    def all_ops_spec(self, genotype: Genotype) -> NetworkSpec:
        """The network of `genotype` with every op that any genotype may have.

        All optional blocks are present, at the widths of this genotype at full depth,
        and every shortcut convolution that some genotype needs is written out.
        """

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Input heights (= widths) that a genotype may have, ascending, in pixels."""
        return self.genes[self.index["resolution"]].choices

    @property
    def optional_ops(self) -> frozenset[str]:
        """Names of ops that a genotype may lack although it has their block: here none."""
        return frozenset()

    @property
    def training_restriction(self) -> dict[str, tuple[int, ...]]:
        """Genes whose choices are narrower in training than in search."""
        return {}

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Position of every gene by name."""
        return {gene.name: i for i, gene in enumerate(self.genes)}

    def ops(self) -> tuple[Op, ...]:
        """The space's op list: every op of any genotype, at its largest sizes."""
        return self._ops

    @functools.cached_property
    def _ops(self) -> tuple[Op, ...]:
        return self.all_ops_spec(self.biggest()).ops()

    def genotype(self, values: Mapping[str, int] | Sequence[int]) -> Genotype:
        """Builds a genotype from values by name or in order.

        Raises:
            GenotypeError: if it lies outside the space, naming the gene.
        """
        reason = self.why_not(values)
        if reason:
            raise GenotypeError(reason)
        if isinstance(values, Mapping):
            values = [values[gene.name] for gene in self.genes]
        return Genotype(self, tuple(int(value) for value in values))

    def why_not(self, values: Mapping[str, int] | Sequence[int]) -> str | None:
        """Why `values` are no genotype of this space; None if they are one."""
        names = [gene.name for gene in self.genes]
        if isinstance(values, Mapping):
            unknown = sorted(str(name) for name in set(values) - set(names))
            missing = [name for name in names if name not in values]
            if unknown or missing:
                return (
                    f"A genotype of space '{self.name}' has the genes {', '.join(names)}. "
                    f"Received: unknown {unknown or 'none'}, missing {missing or 'none'}"
                )
            values = [values[name] for name in names]
        if len(values) != len(names):
            return (
                f"A genotype of space '{self.name}' has {len(names)} values. "
                f"Received: {len(values)}"
            )
        for gene, value in zip(self.genes, values, strict=True):
            if isinstance(value, (bool, float)) or value not in gene.choices:
                return (
                    f"`{gene.name}` of space '{self.name}' must be one of "
                    f"{', '.join(map(str, gene.choices))}. Received: {value!r}"
                )
        return None

    def __contains__(self, genotype: object) -> bool:
        if not isinstance(genotype, Genotype):
            return False
        return genotype.space == self and self.why_not(genotype.values) is None

    def smallest(self) -> Genotype:
        """All genes at their first choice."""
        return Genotype(self, tuple(gene.choices[0] for gene in self.genes))

    def biggest(self) -> Genotype:
        """All genes at their last choice."""
        return Genotype(self, tuple(gene.choices[-1] for gene in self.genes))

    def canonical(self, genotype: Genotype) -> Genotype:
        """The representative of all genotypes that are the same network.

        Here every genotype is a network of its own; spaces with redundant genotypes
        override this.
        """
        return genotype

    def size(self) -> int:
        """Number of genotypes."""
        return math.prod(len(gene.choices) for gene in self.genes)

    def draw(self, rng: np.random.Generator, restrict: Restriction | None = None) -> Genotype:
        """One genotype, every gene uniform over its choices.

        Args:
            rng: source of randomness.
            restrict: narrower choices by gene name.
        """
        restrict = restrict or {}
        choices = [restrict.get(gene.name, gene.choices) for gene in self.genes]
        return self.genotype([int(options[int(rng.integers(len(options)))]) for options in choices])

    def sample(self, count: int, seed: int, restrict: Restriction | None = None) -> list[Genotype]:
        """`count` genotypes drawn uniformly; the same for the same seed everywhere.

        Raises:
            ValueError: if `count` or `seed` is no integer of at least 0.
        """
        require_int("count", count, 0)
        require_int("seed", seed, 0)
        rng = np.random.Generator(np.random.Philox(seed))
        return [self.draw(rng, restrict) for _ in range(count)]

    def mutate(
        self, genotype: Genotype, rng: np.random.Generator, probability: float = 0.1
    ) -> Genotype:
        """Redraws each gene with `probability`, always changing at least one.

        Raises:
            GenotypeError: if the space has a single network.
        """
        elastic = [i for i, gene in enumerate(self.genes) if len(gene.choices) > 1]
        if not elastic:
            raise GenotypeError(f"Space '{self.name}' has one network; nothing can be mutated.")
        chosen = [i for i in elastic if rng.random() < probability]
        values = list(genotype.values)
        for i in chosen or [elastic[rng.integers(len(elastic))]]:
            others = [choice for choice in self.genes[i].choices if choice != values[i]]
            values[i] = others[rng.integers(len(others))]
        return Genotype(self, tuple(values))

    def crossover(self, a: Genotype, b: Genotype, rng: np.random.Generator) -> Genotype:
        """Takes each gene from `a` or `b` with equal probability."""
        take_a = rng.random(len(self.genes)) < 0.5
        pairs = zip(take_a, a.values, b.values, strict=True)
        return Genotype(self, tuple(x if from_a else y for from_a, x, y in pairs))

    def neighbours(self, genotype: Genotype) -> Iterator[Genotype]:
        """All genotypes that differ from this one in exactly one gene."""
        for i, gene in enumerate(self.genes):
            for choice in gene.choices:
                if choice != genotype.values[i]:
                    head, tail = genotype.values[:i], genotype.values[i + 1 :]
                    yield Genotype(self, (*head, choice, *tail))

    def encode(self, genotype: Genotype) -> np.ndarray:
        """Positions of the values among their genes' choices, int64 `(genes,)`."""
        pairs = zip(self.genes, genotype.values, strict=True)
        return np.array([gene.choices.index(value) for gene, value in pairs], np.int64)

    def decode(self, vector: Sequence[int] | np.ndarray) -> Genotype:
        """Inverse of `encode`.

        Raises:
            GenotypeError: for a wrong length or a position out of range.
        """
        vector = np.asarray(vector)
        limits = [len(gene.choices) for gene in self.genes]
        ok = vector.shape == (len(limits),) and np.issubdtype(vector.dtype, np.integer)
        if not ok or np.any(vector < 0) or np.any(vector >= limits):
            raise GenotypeError(
                f"An encoded genotype of space '{self.name}' is {len(limits)} integers, each at "
                f"least 0 and below {limits}. Received: {vector.tolist()}"
            )
        pairs = zip(self.genes, vector, strict=True)
        return Genotype(self, tuple(gene.choices[position] for gene, position in pairs))

    def all_genotypes(self) -> Iterator[Genotype]:
        """Every genotype; only for small spaces."""
        for values in itertools.product(*(gene.choices for gene in self.genes)):
            yield Genotype(self, values)

    def restricted(self, choices: Restriction) -> Space:
        """The same space with fewer choices.

        Args:
            choices: those that stay, by gene; genes that are not named keep all of theirs.

        Raises:
            GenotypeError: for an unknown gene, choices that it does not have, or a space that
                cannot have fewer.
        """
        names = [gene.name for gene in self.genes]
        for name, some in choices.items():
            if name not in names:
                raise GenotypeError(
                    f"Genes of space '{self.name}' are {', '.join(names)}. Received: {name!r}"
                )
            allowed = self.genes[self.index[name]].choices
            ok = isinstance(some, (list, tuple)) and len(some) > 0
            if not ok or not all(is_int(value) and value in allowed for value in some):
                raise GenotypeError(
                    f"`{name}` of space '{self.name}' must keep one or more of "
                    f"{', '.join(map(str, allowed))}. Received: {some!r}"
                )
        kept = {
            gene.name: tuple(sorted({*choices.get(gene.name, gene.choices)})) for gene in self.genes
        }
        same = all(kept[gene.name] == gene.choices for gene in self.genes)
        return self if same else self.with_choices(kept)

    def with_choices(self, choices: Mapping[str, tuple[int, ...]]) -> Space:
        """The same space with these choices of every gene, which are among its own.

        Raises:
            GenotypeError: if the space does not define it.
        """
        raise GenotypeError(
            f"Space '{self.name}' must define `with_choices` to have fewer choices. "
            f"Received: a {type(self).__name__} without it"
        )

    def config(self) -> dict[str, Any]:
        """All fields as plain data, and the `class`."""
        fields = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {"class": type(self).__name__, **fields}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Space:
        """Inverse of `config`, also after a trip through JSON."""
        fields = {k: v for k, v in config.items() if k != "class"}
        return cls(**{k: as_tuples(v) for k, v in fields.items()})

    def to_json(self) -> dict[str, Any]:
        """Name, classes and choices as plain data: what searches of one space share."""
        return {
            "name": self.name,
            "classes": self.classes,
            "genes": {gene.name: list(gene.choices) for gene in self.genes},
        }
