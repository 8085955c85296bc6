"""Thresholds of several labels: from which score on a label is given, by a rule, without overfitting rare labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from headrace.decide.abstain import fewest_rows
from headrace.decide.calibration import finite, logit, sigmoid
from headrace.decide.folds import N_FOLDS, parts, stratified_folds
from headrace.errors import RecipeError, suggestion
from headrace.intervals import counts_of, resampled_rows
from headrace.metrics import LabelCounts, mean_of_defined

DEFAULT = 0.5
F_BETA = "f_beta"
PRECISION = "precision"
COST = "cost"
_RULES = ("f1", F_BETA, PRECISION, COST)
_COSTS = ("false_negative", "false_positive")
#: Labels whose costs a rule's name shows.
_MAX_NAMED = 6
#: Rows with the label at which its own threshold and the common one count the same.
SHRINK_ROWS = 20
#: One-sided: how sure a label's precision must be.
PRECISION_CERTAINTY = 0.9
#: Thresholds stay inside of this, so that a score can still be on either side.
LOWEST, HIGHEST = 1e-5, 1 - 1e-5
_RESAMPLES = 200
#: The common threshold is one number; more rows and labels than this would only cost time.
_POOLED_CELLS = 500_000


@dataclass(frozen=True)
class Rule:
    """What thresholds are to be best at.

    Attributes:
        kind: `f_beta`, `precision` or `cost`.
        beta: Of `f_beta`: recall counts beta times as much as precision; above 0.
        precision: Of `precision`: the wished one, above 0 and below 1.
        false_positive, false_negative: Of `cost`: what a wrong yes and a wrong no cost, above 0; one number for all
            labels, or one of each.
        name: As the report shows it.
    """

    kind: str
    beta: float = 1.0
    precision: float = 0.0
    false_positive: float | tuple[float, ...] = 1.0
    false_negative: float | tuple[float, ...] = 1.0
    name: str = "f1"

    @classmethod
    def of(cls, given: str | Mapping[str, object], labels: Sequence[str] | None = None) -> Rule:
        """Return the rule of a recipe.

        Args:
            given: `f1`, `{f_beta: 2.0}`, `{precision: 0.9}`, `{cost: {false_positive: 1, false_negative: 5}}`, or costs by
                label, `{cost: {threat: {false_positive: 1, false_negative: 50}}}`; a label that is left out costs 1 and 1.
            labels: The names of the labels, in their order. Without them costs by label are only looked over: the rule
                fits no scores.

        Raises:
            RecipeError: It is none of these, a number is not in its range, or there is no such label.
        """
        if isinstance(given, str) and given in ("f1", "auto"):
            return cls(F_BETA)
        if not isinstance(given, Mapping) or len(given) != 1 or next(iter(given)) not in _RULES[1:]:
            first = next(iter(given), "") if isinstance(given, Mapping) else given
            raise RecipeError(
                f"there is no rule for thresholds {given!r}",
                where="decide.threshold",
                next=suggestion(str(first), _RULES),
            )
        kind, value = next(iter(given.items()))
        if kind == F_BETA:
            beta = _number(value, "f_beta", 1000.0)
            return cls(F_BETA, beta=beta, name=f"f_beta {beta:g}")
        if kind == PRECISION:
            wished = _number(value, "precision", 1.0)
            return cls(PRECISION, precision=wished, name=f"precision {wished:g}")
        if isinstance(value, Mapping) and value and all(isinstance(one, Mapping) for one in value.values()):
            return cls._of_labels(value, list(value) if labels is None else labels)
        negative, positive = _costs(value, "cost")
        named = f"cost: false positive {positive:g}, false negative {negative:g}"
        return cls(COST, false_positive=positive, false_negative=negative, name=named)

    @classmethod
    def _of_labels(cls, value: Mapping[str, object], labels: Sequence[str]) -> Rule:
        unknown = [name for name in value if name not in labels]
        if unknown:
            raise RecipeError(
                f"there is no label {unknown[0]!r}", where="decide.threshold.cost", next=suggestion(unknown[0], labels)
            )
        costs = {name: _costs(given, f"cost.{name}") for name, given in value.items()}
        negative, positive = zip(*(costs.get(name, (1.0, 1.0)) for name in labels), strict=True)
        named = [f"{name} {costs[name][1]:g} and {costs[name][0]:g}" for name in labels if name in costs]
        more = "; …" if len(named) > _MAX_NAMED else ""
        shown = f"cost of a false positive and a false negative: {'; '.join(named[:_MAX_NAMED])}{more}"
        return cls(COST, false_positive=positive, false_negative=negative, name=shown)

    def of_label(self, label: int) -> Rule:
        """Return the rule of one label."""
        if not isinstance(self.false_positive, tuple) or not isinstance(self.false_negative, tuple):
            return self
        return replace(
            self, false_positive=self.false_positive[label], false_negative=self.false_negative[label], name=""
        )

    @property
    def costs(self) -> tuple[np.ndarray, np.ndarray]:
        """What a wrong yes and a wrong no cost, float64 [] or [labels]."""
        return np.asarray(self.false_positive, dtype=np.float64), np.asarray(self.false_negative, dtype=np.float64)

    def objective(self, counts: LabelCounts, n_rows: int) -> np.ndarray:
        """Return how good decisions are, larger is better: the mean over the labels that have any row.

        F-beta: its macro mean. Cost: minus the cost of a row and label. Precision: a label's recall if its precision is
        as wished (or it was never given: a recall of 0), else precision - wished precision, which is below 0.

        Args:
            counts: [..., labels].
            n_rows: Of the decisions.
        """
        if self.kind == F_BETA:
            weighted = self.beta**2
            each = _divided((1 + weighted) * counts.hits, weighted * counts.support + counts.decided)
        elif self.kind == COST:
            wrong_yes, wrong_no = counts.decided - counts.hits, counts.support - counts.hits
            of_yes, of_no = self.costs
            each = -(of_yes * wrong_yes + of_no * wrong_no) / max(n_rows, 1)
        else:
            precision, recall = counts.precision(), counts.recall()
            each = np.where(precision < self.precision, precision - self.precision, recall)
        return mean_of_defined(np.asarray(each))

    @property
    def is_f1(self) -> bool:
        """Whether the objective is macro F1."""
        return self.kind == F_BETA and self.beta == 1.0

    @property
    def objective_name(self) -> str:
        """What `objective` is called in a sentence."""
        if self.kind == F_BETA:
            return "macro F1" if self.is_f1 else f"macro F-beta ({self.beta:g})"
        return "minus the cost" if self.kind == COST else f"recall at a precision of {self.precision:g}"


def _costs(value: object, name: str) -> tuple[float, ...]:
    """Return what a false negative and a false positive cost."""
    if not isinstance(value, Mapping) or sorted(value) != list(_COSTS):
        raise RecipeError(
            f"costs of {value!r} are not two numbers",
            where=f"decide.threshold.{name}",
            next="give {false_positive: 1, false_negative: 5}",
        )
    return tuple(_number(value[key], f"{name}.{key}", 1e9) for key in _COSTS)


def _number(value: object, name: str, most: float) -> float:
    where = f"decide.threshold.{name}"
    try:
        number = finite(value, name)
    except ValueError as error:
        raise RecipeError(str(error), where=where, next="give a number above 0") from error
    if not 0 < number < most:
        raise RecipeError(f"{name} is {number:g}", where=where, next=f"give a number above 0 and below {most:g}")
    return number


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    return np.asarray(np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0))


def fit_thresholds(scores: np.ndarray, targets: np.ndarray, *, rule: Rule, seed: int = 0) -> np.ndarray:
    """Return a threshold for each label, float64 [labels], each a float32 number so that either precision decides alike.

    Cross-fitted: each label's best threshold is found on the rows outside of each of 5 folds, stratified by label, and
    the mean of the five is taken in the space of logits: one lucky row moves none of them far. Then it is shrunk toward
    the common threshold, also in the space of logits: (n own + k common) / (n + k) with n rows that have the label and
    k = `SHRINK_ROWS`. The common one is the best for all labels pooled; of `cost` it is a / (a + b) for costs a of a wrong
    yes and b of a wrong no (the label's own, where labels have their own), which is exact for calibrated scores.

    `precision` is not shrunk: each label gets the lowest threshold at which a one-sided lower bound of its precision
    (Clopper and Pearson, `PRECISION_CERTAINTY`), going down from the surest rows, never falls under the wished one.
    So it holds on new rows with about that chance for each label, where precision falls as the threshold does. A label
    with too few rows for that gets the common threshold, of all labels pooled, or `HIGHEST` if there is none.

    Args:
        scores: [rows, labels] in [0, 1], calibrated.
        targets: 0/1 [rows, labels].
        rule: What to be best at.
        seed: Of the folds.

    Source: Elkan 2001, "The Foundations of Cost-Sensitive Learning", section 2; F-measures: Lipton, Elkan and Naryanaswamy
        2014, "Optimal Thresholding of Classifiers to Maximize F1 Measure", arXiv 1402.1892, whose section 4 shows the
        overfitting of rare labels that the shrinking is for. The form n / (n + k) is ours.
    """
    has_label = targets != 0
    values = scores.astype(np.float64)
    if rule.kind == PRECISION:
        common = _precise(values.ravel(), has_label.ravel(), rule.precision)
        fallback = HIGHEST if common is None else common
        each = precise_thresholds(values, has_label, rule.precision)
        return _rounded(np.array([fallback if one is None else one for one in each]))
    folds = stratified_folds(targets, values.shape[1], n_folds=N_FOLDS, seed=seed)
    found = np.array([_best_of_each(values[rows], has_label[rows], rule) for rows, _ in parts(folds)])
    if len(found) == 0:
        return np.full(values.shape[1], DEFAULT)
    own, common_logit = found[:, :-1], np.asarray(found[:, -1].mean())
    if rule.kind == COST:
        of_yes, of_no = rule.costs
        common_logit = logit(of_yes / (of_yes + of_no))
    # a label without a row in some fold's rows has no threshold there
    n_found = (~np.isnan(own)).sum(axis=0)
    means = np.where(n_found > 0, np.nansum(own, axis=0) / np.maximum(n_found, 1), common_logit)
    n_with = has_label.sum(axis=0)
    weight = n_with / (n_with + SHRINK_ROWS)
    return _rounded(sigmoid(weight * means + (1 - weight) * common_logit))


def _rounded(thresholds: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(thresholds, LOWEST).astype(np.float32).astype(np.float64))


def _best_of_each(scores: np.ndarray, has_label: np.ndarray, rule: Rule) -> np.ndarray:
    """Return the logit of each label's best threshold (NaN without a row that has it), and the common one at the end."""
    own = [_best(scores[:, i], has_label[:, i], rule.of_label(i)) for i in range(scores.shape[1])]
    if rule.kind == COST:  # the costs themselves say the common one
        return np.array([*own, 0.0])
    step = 1 + scores.size // _POOLED_CELLS
    common = _best(scores[::step].ravel(), has_label[::step].ravel(), rule)
    return np.array([*own, 0.0 if np.isnan(common) else common])


def _best(scores: np.ndarray, has_label: np.ndarray, rule: Rule) -> float:
    """Return the logit of the threshold with the best objective: halfway to the next lower score, NaN without a row."""
    n_with = int(has_label.sum())
    if n_with == 0:
        return np.nan
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.diff(ordered, append=-np.inf) != 0)  # of rows with equal scores
    hits = np.cumsum(has_label[order])[last]
    counts = LabelCounts(hits[:, None], (last + 1)[:, None], np.full((len(last), 1), n_with))
    best = int(np.nan_to_num(rule.objective(counts, len(scores)), nan=-np.inf).argmax())
    here = ordered[last[best]]
    below = ordered[last[best] + 1] if last[best] + 1 < len(ordered) else here
    ends = logit(np.clip([here, below], LOWEST, HIGHEST))
    return float(ends.mean())


def precise_thresholds(scores: np.ndarray, has_label: np.ndarray, wished: float) -> list[float | None]:
    """Return of each label the threshold that keeps the wished precision; None where too few rows could show it.

    Args:
        scores: [rows, labels].
        has_label: bool [rows, labels].
        wished: Precision, above 0 and below 1.
    """
    return [_precise(scores[:, i], has_label[:, i], wished) for i in range(scores.shape[1])]


def _precise(scores: np.ndarray, has_label: np.ndarray, wished: float) -> float | None:
    """Return the lowest score down to which the lower bound of the precision stays at least as wished; None if nowhere.

    It begins where two errors would still do, at a number of rows that no label has a part in.
    """
    from scipy.special import bdtr

    delta, error_rate = 1 - PRECISION_CERTAINTY, 1 - wished
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.diff(ordered, append=-np.inf) != 0)
    errors = np.cumsum(~has_label[order])[last]
    start = fewest_rows(error_rate, delta)
    while bdtr(2.0, start, error_rate) > delta:
        start += 1
    tried = last + 1 >= start
    # the bound is at least as wished exactly where so few errors have a chance of at most delta
    failed = np.flatnonzero(bdtr(errors[tried].astype(np.float64), last[tried] + 1, error_rate) > delta)
    n_passed = int(failed[0]) if len(failed) else int(tried.sum())
    return float(ordered[last[tried][n_passed - 1]]) if n_passed else None


def out_of_fold_thresholds(scores: np.ndarray, targets: np.ndarray, *, rule: Rule, seed: int) -> np.ndarray:
    """Return the thresholds of each row's label as fitted on the other folds' rows, float64 [rows, labels]."""
    found = np.full(scores.shape, DEFAULT)
    folds = stratified_folds(targets, scores.shape[1], n_folds=N_FOLDS, seed=seed)
    for rows, held_out in parts(folds):
        found[held_out] = fit_thresholds(scores[rows], targets[rows], rule=rule, seed=seed)
    return found


@dataclass(frozen=True)
class Gain:
    """What something fitted gains over leaving it out, on rows that did not fit it.

    Attributes:
        mean: Mean gain; above 0 is better.
        error: Its standard error over rows.
    """

    mean: float
    error: float

    @property
    def is_kept(self) -> bool:
        """Whether it gains more than its standard error, so that noise alone is mostly refused."""
        return self.mean > max(self.error, 0.0) and self.mean > 1e-9


def thresholds_gain(
    repeats: list[tuple[np.ndarray, np.ndarray]], before: np.ndarray, targets: np.ndarray, *, rule: Rule, seed: int
) -> Gain:
    """Return the rule's gain over other decisions, paired on the same rows, by repeated cross-validation.

    Args:
        repeats: Of each repeat the out-of-fold scores [rows, labels] and the out-of-fold thresholds [rows, labels].
        before: bool [rows, labels], what is decided without the thresholds.
        targets: 0/1 [rows, labels].
        rule: Whose objective is compared.
        seed: Of the bootstrap over rows that gives the standard error.
    """
    has_label, n_rows = targets != 0, len(targets)
    decided = [(scores >= limits, before) for scores, limits in repeats]

    def objective(said: np.ndarray, count: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        kinds = LabelCounts(count(has_label & said), count(said), count(has_label))
        return rule.objective(kinds, n_rows)

    gains = [objective(new, _sum) - objective(old, _sum) for new, old in decided]
    new, old = decided[0]
    drawn = []
    for some in resampled_rows(n_rows, resamples=_RESAMPLES, seed=seed):
        counts = counts_of(some)

        def count(values: np.ndarray, counts: np.ndarray = counts) -> np.ndarray:
            return np.asarray(counts.T @ values.astype(counts.dtype))

        drawn.append(objective(new, count) - objective(old, count))
    return Gain(float(np.mean(gains)), float(np.nanstd(np.concatenate(drawn))))


def _sum(values: np.ndarray) -> np.ndarray:
    return np.asarray(values.sum(axis=0))
