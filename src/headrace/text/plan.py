"""Which rows make which step: arithmetic of (seed, epoch, step), the same for any number of processes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from headrace.errors import RecipeError, suggestion

SAMPLERS = ("random", "length_buckets", "balanced")
# Sorting 50 batches at a time takes nearly all padding out and leaves each batch a chance sample of its window.
WINDOW_BATCHES = 50
_WORD = (1 << 64) - 1
# One random stream for each use of an epoch, so that none repeats another's numbers.
_ORDER, _BATCHES, _DRAWS = range(3)


def order(n_rows: int, *, seed: int, epoch: int) -> np.ndarray:
    """Return the epoch's permutation of the rows, [rows] int64: a pure function of its arguments.

    It sorts raw Philox words, whose stream numpy guarantees; `Generator.permutation` may change between releases.
    """
    return _shuffled(n_rows, seed, epoch, _ORDER)


def _shuffled(n: int, seed: int, epoch: int, use: int) -> np.ndarray:
    return np.argsort(_words(n, seed, epoch, use), kind="stable")


def _words(n: int, seed: int, epoch: int, use: int) -> np.ndarray:
    """Return [n] uint64 of the stream that (seed, epoch, use) names."""
    key = np.array([seed & _WORD, (epoch | use << 56) & _WORD], dtype=np.uint64)
    return np.asarray(np.random.Philox(key=key).random_raw(n), dtype=np.uint64)


@dataclass(frozen=True, eq=False)
class Plan:
    """The rows of each step of each epoch.

    Attributes:
        n_rows: Rows of the training data.
        batch_size: Rows of a step, all processes together; an epoch's last step may have fewer.
        seed: With the epoch and the step it decides everything.
        sampler: `random`: the epoch's permutation, cut into batches. `length_buckets`: the same, but 50 batches at a
            time are sorted by length before they are cut, and the batches are shuffled; what is left over for the
            short last batch stays as the permutation has it. `balanced`: as many draws with replacement as there are
            rows, each label equally likely; for multi-label a row's weight is the inverse frequency of its rarest
            label, and rows without labels count as one label more.
        lengths: [rows] tokens; for `length_buckets`.
        targets: [rows] int64 or [rows, labels] float32; for `balanced`.
    """

    n_rows: int
    batch_size: int
    seed: int
    sampler: str = "random"
    lengths: np.ndarray | None = None
    targets: np.ndarray | None = None
    _kept: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise RecipeError(
                f"there is no sampler named {self.sampler!r}",
                where="fit.sampler",
                next=suggestion(self.sampler, SAMPLERS),
            )
        if self.batch_size < 1:
            raise RecipeError(
                f"batch_size must be at least 1, not {self.batch_size}", where="fit.batch_size", next="32 is usual"
            )
        for sampler, name in (("length_buckets", "lengths"), ("balanced", "targets")):
            given = getattr(self, name)
            if self.sampler == sampler and (given is None or len(given) != self.n_rows):
                n_given = "none" if given is None else len(given)
                raise ValueError(f"the sampler {sampler} needs {name} of all {self.n_rows} rows, got {n_given}")

    @property
    def n_steps(self) -> int:
        """Steps of an epoch, the short last one included; 0 without rows."""
        return -(-self.n_rows // self.batch_size)

    def rows(self, epoch: int, step: int) -> np.ndarray:
        """Return the global batch of a step: [rows of the step] int64.

        Raises:
            IndexError: The epoch has no such step.
        """
        if not 0 <= step < self.n_steps:
            raise IndexError(f"step {step} of an epoch of {self.n_steps} steps")
        return self.epoch_rows(epoch)[step * self.batch_size : (step + 1) * self.batch_size]

    def share(self, epoch: int, step: int, rank: int, world: int) -> np.ndarray:
        """Return the rows of one of `world` processes; those of all together are the global batch.

        Ranks of a short last batch may differ by one row, or get none where it has fewer rows than there are ranks.
        """
        if not 0 <= rank < world:
            raise IndexError(f"rank {rank} of {world} processes")
        return self.rows(epoch, step)[rank::world]

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """Return the rows of all steps of an epoch, end to end: [rows] int64; not to be written to."""
        kept = self._kept.get(epoch)
        if kept is None:
            kept = _EPOCHS[self.sampler](self, epoch)
            kept.flags.writeable = False
            self._kept.clear()  # an epoch's order is asked for step after step; one is enough
            self._kept[epoch] = kept
        return kept


def _random(plan: Plan, epoch: int) -> np.ndarray:
    return order(plan.n_rows, seed=plan.seed, epoch=epoch)


def _length_buckets(plan: Plan, epoch: int) -> np.ndarray:
    permutation = order(plan.n_rows, seed=plan.seed, epoch=epoch)
    n_full = plan.n_rows // plan.batch_size
    full, rest = np.split(permutation, [n_full * plan.batch_size])
    lengths = np.asarray(plan.lengths)
    window = np.arange(len(full)) // (WINDOW_BATCHES * plan.batch_size)
    by_length = full[np.lexsort((lengths[full], window))]
    batches = by_length.reshape(n_full, plan.batch_size)[_shuffled(n_full, plan.seed, epoch, _BATCHES)]
    return np.concatenate([batches.reshape(-1), rest])


def _balanced(plan: Plan, epoch: int) -> np.ndarray:
    ends = np.cumsum(row_weights(np.asarray(plan.targets)))
    # The upper 53 bits are a float64 in [0, 1).
    draws = (_words(plan.n_rows, plan.seed, epoch, _DRAWS) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    found = np.searchsorted(ends, draws * ends[-1] if len(ends) else draws, side="right")
    return np.minimum(found, max(plan.n_rows - 1, 0)).astype(np.int64)


_EPOCHS = {"random": _random, "length_buckets": _length_buckets, "balanced": _balanced}


def row_weights(targets: np.ndarray) -> np.ndarray:
    """Return each row's weight under the balanced sampler, [rows] float64.

    Args:
        targets: [rows] int64: one over the count of the row's label. [rows, labels] 0/1 float32: one over the count of
            the row's rarest label; rows without labels count as a label of their own.
    """
    if targets.ndim == 1:
        _, inverse, counts = np.unique(targets, return_inverse=True, return_counts=True)
        return np.asarray(1.0 / counts[inverse])
    present = targets > 0
    n_rows = len(targets)
    # n_rows is at least any label's count, so a label that the row lacks never is its rarest.
    rarest = np.where(present, present.sum(axis=0), n_rows).min(axis=1, initial=n_rows)
    n_clean = int((~present.any(axis=1)).sum())
    return 1.0 / np.where(present.any(axis=1), rarest, n_clean).astype(np.float64)
