"""Deals groups of rows to two sides so that each set of labels, and each label, has its share on both.

Source:
    Sechidis, Tsoumakas and Vlahavas 2011, "On the Stratification of Multi-Label Data", algorithm 1 (iterative
    stratification). We differ in two points. Rows with the same set of labels can take each other's place, so the
    whole-number part of each set's share is dealt at once, and the algorithm deals the rest (one row a set, if no
    texts are equal). And a side that has all its rows takes no more, so that the sizes come out exactly.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

import numpy as np

_UNDECIDED, _CHOSEN, _OTHER = 0, 1, 2
_CLOSE = 1e-9  # shares are sums of a few floats; what differs by less is a tie


@dataclass(frozen=True)
class Groups:
    """Rows that must stay together.

    Attributes:
        sizes: Rows of each group, [groups] int64.
        set_of: The position in `sets` of each group's labels, [groups] integer.
        sets: Distinct sets of label names, sorted; the empty set is for rows without a label.
        order: A number for each group by content and seed, [groups] uint64; smaller ones are dealt first.
    """

    sizes: np.ndarray
    set_of: np.ndarray
    sets: list[tuple[str, ...]]
    order: np.ndarray


def deal(groups: Groups, *, share: float, n_chosen: int, keep_every_label: bool) -> np.ndarray:
    """Return which groups go to the chosen side, [groups] bool.

    Args:
        groups: All rows, in groups.
        share: The chosen side's part of each label's rows, above 0 and below 1.
        n_chosen: Rows on the chosen side; missed only where groups do not fit, or for `keep_every_label`.
        keep_every_label: Leave at least one group of each label on the other side, whatever that does to the sizes.
            Otherwise labels are kept there while it has room.
    """
    side = _deal_whole_shares(groups, share)
    rest = _Rest.of(groups, side, share, n_chosen, keep_every_label)
    rest.deal_last_of_label()
    rest.deal_labels()
    rest.deal_unlabelled()
    return np.asarray(side == _CHOSEN)


def _deal_whole_shares(groups: Groups, share: float) -> np.ndarray:
    """Deal each set's groups as long as they fit in the whole-number part of the set's share, [groups] int8."""
    n_sets = len(groups.sets)
    n_groups = np.bincount(groups.set_of, minlength=n_sets)
    n_rows = np.bincount(groups.set_of, weights=groups.sizes, minlength=n_sets)
    room_chosen = np.floor(n_rows * share + _CLOSE).astype(np.int64)
    room_other = np.floor(n_rows * (1.0 - share) + _CLOSE).astype(np.int64)
    by_set = np.lexsort((groups.order, groups.set_of))
    begin = np.concatenate(([0], np.cumsum(n_groups)[:-1]))
    set_of = groups.set_of[by_set]
    rank = np.arange(len(by_set)) - begin[set_of]
    dealt = np.full(len(by_set), _UNDECIDED, dtype=np.int8)
    dealt[rank < room_chosen[set_of]] = _CHOSEN
    dealt[(rank >= room_chosen[set_of]) & (rank < (room_chosen + room_other)[set_of])] = _OTHER
    for number in np.flatnonzero(n_rows > n_groups).tolist():  # sets in which some texts are equal
        chosen = slice(begin[number], begin[number] + n_groups[number])
        sizes = groups.sizes[by_set[chosen]].tolist()
        dealt[chosen] = _fit(sizes, int(room_chosen[number]), int(room_other[number]))
    side = np.empty_like(dealt)
    side[by_set] = dealt
    return side


def _fit(sizes: list[int], room_chosen: int, room_other: int) -> list[int]:
    dealt = []
    for size in sizes:
        if size <= room_chosen:
            room_chosen -= size
            dealt.append(_CHOSEN)
        elif size <= room_other:
            room_other -= size
            dealt.append(_OTHER)
        else:
            dealt.append(_UNDECIDED)
    return dealt


@dataclass
class _Rest:
    """The groups that are still to deal, and what each side wants. Lists by label are in the labels' sorted order."""

    groups: Groups
    side: np.ndarray
    labels_of: list[list[int]]  # of each set
    room: list[int]  # rows still to go to the chosen and to the other side
    wanted: list[list[float]]  # by label: rows still wanted by the chosen and by the other side
    kept: list[bool]  # by label: has the other side any row
    waiting: list[list[int]]  # by label: undecided groups, in seeded order
    keep_every_label: bool
    n_waiting: list[int] = field(default_factory=list)
    rows_waiting: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, groups: Groups, side: np.ndarray, share: float, n_chosen: int, keep_every_label: bool) -> _Rest:
        names = sorted({name for labels in groups.sets for name in labels})
        number = {name: position for position, name in enumerate(names)}
        labels_of = [[number[name] for name in labels] for labels in groups.sets]
        dealt = [
            np.bincount(groups.set_of, weights=groups.sizes * (side == which), minlength=len(groups.sets)).tolist()
            for which in (_UNDECIDED, _CHOSEN, _OTHER)
        ]
        wanted = [[0.0, 0.0] for _ in names]
        kept = [False] * len(names)
        for position, labels in enumerate(labels_of):
            undecided, chosen, other = (rows[position] for rows in dealt)
            n_rows = undecided + chosen + other
            for label in labels:
                wanted[label][0] += n_rows * share - chosen
                wanted[label][1] += n_rows * (1.0 - share) - other
                kept[label] = kept[label] or other > 0
        waiting: list[list[int]] = [[] for _ in names]
        undecided_groups = np.flatnonzero(side == _UNDECIDED)
        for group in undecided_groups[np.argsort(groups.order[undecided_groups], kind="stable")].tolist():
            for label in labels_of[groups.set_of[group]]:
                waiting[label].append(group)
        n_rows_all = int(groups.sizes.sum())
        room = [n_chosen - int(sum(dealt[1])), n_rows_all - n_chosen - int(sum(dealt[2]))]
        rest = cls(groups, side, labels_of, room, wanted, kept, waiting, keep_every_label)
        rest.n_waiting = [len(found) for found in waiting]
        rest.rows_waiting = [int(groups.sizes[found].sum()) for found in waiting]
        return rest

    def deal_last_of_label(self) -> None:
        """Leave the only group of a label on the other side, before that side is full."""
        for label in sorted(range(len(self.kept)), key=self._urgency):
            if self.n_waiting[label] == 1:
                group = next(group for group in self.waiting[label] if self.side[group] == _UNDECIDED)
                if self._is_last(group):
                    self._put(group, _OTHER)

    def deal_labels(self) -> None:
        """Deal the label with the fewest rows first: later ones have more rows to make up for it."""
        heap = [self._urgency(label) for label in range(len(self.kept)) if self.rows_waiting[label]]
        heapq.heapify(heap)
        while heap:
            rows, _, _, label = heapq.heappop(heap)
            if rows != self.rows_waiting[label]:
                continue  # an entry from before other labels took some of its rows
            touched: set[int] = set()
            for group in self.waiting[label]:
                if self.side[group] == _UNDECIDED:
                    self._put(group, self._better_side(group, label))
                    touched.update(self.labels_of[self.groups.set_of[group]])
            for other in sorted(touched - {label}):
                if self.rows_waiting[other]:
                    heapq.heappush(heap, self._urgency(other))

    def deal_unlabelled(self) -> None:
        """Fill both sides up with the rows that have no label."""
        left = np.flatnonzero(self.side == _UNDECIDED)
        for group in left[np.lexsort((self.groups.order[left], -self.groups.sizes[left]))].tolist():
            self._put(group, _CHOSEN if self.room[0] > self.room[1] else _OTHER)

    def _urgency(self, label: int) -> tuple[int, float, int, int]:
        """Return the key of the order of labels: fewest rows, then the clearest wish, then content and seed."""
        chosen, other = self.wanted[label]
        first = int(self.groups.order[self.waiting[label][0]]) if self.waiting[label] else 0
        return self.rows_waiting[label], -round(abs(chosen - other), 9), first, label

    def _is_last(self, group: int) -> bool:
        """Tell whether some label would be missing on the other side without this group."""
        if not self.keep_every_label and self.room[1] < self.groups.sizes[group]:
            return False
        labels = self.labels_of[self.groups.set_of[group]]
        return any(not self.kept[label] and self.n_waiting[label] == 1 for label in labels)

    def _better_side(self, group: int, label: int) -> int:
        if self._is_last(group):
            return _OTHER
        size = int(self.groups.sizes[group])
        fits = [room >= size for room in self.room]
        if fits[0] != fits[1]:
            return _CHOSEN if fits[0] else _OTHER
        chosen, other = self.wanted[label]
        if not fits[0] or math.isclose(chosen, other, abs_tol=_CLOSE):
            chosen, other = self.room
        if chosen == other:
            return _CHOSEN if int(self.groups.order[group]) & 1 else _OTHER
        return _CHOSEN if chosen > other else _OTHER

    def _put(self, group: int, which: int) -> None:
        self.side[group] = which
        size = int(self.groups.sizes[group])
        column = 0 if which == _CHOSEN else 1
        self.room[column] -= size
        for label in self.labels_of[self.groups.set_of[group]]:
            self.wanted[label][column] -= size
            self.n_waiting[label] -= 1
            self.rows_waiting[label] -= size
            self.kept[label] = self.kept[label] or which == _OTHER
