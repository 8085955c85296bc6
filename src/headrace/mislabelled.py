"""Ranks the rows that are most likely mislabelled, by confident learning from out-of-fold scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np

from headrace.data.examples import LabelSet
from headrace.data.split import folded
from headrace.errors import DataError, MissingExtra

#: Rows that a ranking names at most.
MAX_RANKED = 1000
MAX_SHOWN_CHARACTERS = 200
# Of 1, 3, 10 and 30 it found most flips in IMDb reviews and toxic comments, by little; benchmarks/mislabelled.py.
_C = 10.0
_MAX_FEATURES = 200_000
# Of the extra features in the log-odds.
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
# A language written without spaces has no words to count: one space in 15 characters is less than German has.
_LEAST_SPACES = 1 / 15

Texts = Sequence[str] | Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Suspect:
    """A row whose label is in doubt.

    Attributes:
        position: In the texts given, from 0.
        given: The row's label, or its labels.
        suggested: What the other rows speak for; equal to `given` where they do not speak against it.
        score: cleanlab's label quality in [0, 1]; the lower it is, the more likely is the given label wrong.
        text: Its first 200 characters; the two texts of a pair have a line break between them.
        where: `file:row`, where it is known.
    """

    position: int
    given: tuple[str, ...]
    suggested: tuple[str, ...]
    score: float
    text: str
    where: str | None = None


@dataclass(frozen=True)
class Suspects:
    """Rows in the order in which their labels should be looked at.

    Attributes:
        rows: The most doubtful first, at most 1,000.
        n_rows: Rows that were ranked.
        n_left_out: Rows that were not, for their label has fewer rows than there are folds.
        labels_left_out: The labels of which that is true; in multi-label they are not judged.
        n_estimated: How many rows cleanlab calls label issues: an estimate, and too high a one, for it counts rows that
            are merely hard. Where 250 of 5,000 reviews were wrong it said 397 to 463.
        agreement_share: Share of given labels (in multi-label of all yes-and-no answers) that the out-of-fold model
            would give too, in [0, 1]. Where it is low, the ranking says little.
    """

    rows: tuple[Suspect, ...]
    n_rows: int
    n_left_out: int
    labels_left_out: tuple[str, ...]
    n_estimated: int
    agreement_share: float

    def at(self, places: Sequence[str]) -> Suspects:
        """Return them with `file:row` of each; `places` holds one for each of `rows`."""
        rows = tuple(replace(row, where=where) for row, where in zip(self.rows, places, strict=True))
        return replace(self, rows=rows)

    def as_dict(self) -> dict[str, Any]:
        """Return all fields by name; `rows` as mappings of Suspect's fields."""
        return asdict(self)


def mislabelled(
    texts: Texts,
    targets: np.ndarray,
    labels: LabelSet,
    *,
    task: str,
    seed: int,
    folds: int = 5,
    extra_features: np.ndarray | None = None,
) -> Suspects:
    """Rank rows by how likely their labels are wrong.

    TF-IDF and logistic regression score each row with a model that has not seen it, nor an equal text (case and white
    space aside). A row's score is its label's out-of-fold probability; with several labels, cleanlab's soft minimum
    over their probabilities.

    Args:
        texts: Strings, or pairs of them.
        targets: [rows] int64 positions in `labels`, or [rows, labels] of 0 and 1.
        labels: Names of the labels.
        task: `single_label` or `multi_label`.
        seed: Decides the folds.
        folds: Parts of which each is scored by a model of the others, at least 2.
        extra_features: [rows, width] float, such as vectors of a frozen sentence encoder. A second model learns from
            them, and its log-odds are mixed with the first one's in the share that fits the given labels best.

    Raises:
        MissingExtra: cleanlab is not installed.
        DataError: There are too few rows, or the texts have no word in common.

    Source:
        Northcutt, Jiang, Chuang: Confident Learning (JAIR 2021), sections 3 and 4, as cleanlab does it. Thyagarajan et
        al.: Identifying Incorrect Annotations in Multi-Label Classification Data (2022) for several labels.
    """
    _cleanlab("rank")  # missing? say so before any work
    wanted = np.asarray(targets)
    dense = wanted > 0 if task == "multi_label" else wanted[:, None] == np.arange(len(labels))
    rows, judged = _judged(dense, task, folds)
    given = dense[rows]
    joined = [text if isinstance(text, str) else "\n".join(text) for text in texts]
    chosen = [joined[row] for row in rows.tolist()]
    parts = _fold_of_row(chosen, given, folds=folds, seed=seed)
    log_odds = _out_of_fold(_word_counts(chosen), given[:, judged], parts, task)
    if extra_features is not None:
        other = _out_of_fold(_standardized(np.asarray(extra_features)[rows]), given[:, judged], parts, task)
        log_odds = _mixed(log_odds, other, given[:, judged], task)
    scores = _probabilities(log_odds, task)
    suggested = given.copy()
    suggested[:, judged] = _answers(scores, task)
    quality = _quality(given[:, judged], scores, task)
    ranked = np.argsort(quality, kind="stable")[:MAX_RANKED].tolist()
    found = [
        Suspect(
            position=int(rows[row]),
            given=_names(given[row], labels),
            suggested=_names(suggested[row], labels),
            score=round(float(quality[row]), 6),
            text=_excerpt(chosen[row]),
        )
        for row in ranked
    ]
    unjudged = sorted(set(range(len(labels))) - set(judged.tolist()))
    return Suspects(
        rows=tuple(found),
        n_rows=len(rows),
        n_left_out=len(dense) - len(rows),
        labels_left_out=tuple(labels.names[label] for label in unjudged),
        n_estimated=int(_issues(given[:, judged], scores, task).sum()),
        agreement_share=round(_agreement(given, suggested, judged, task), 4),
    )


def _judged(dense: np.ndarray, task: str, folds: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that can be ranked and the labels that can be judged, positions of either."""
    is_multi_label = task == "multi_label"
    counts = dense.sum(axis=0)
    fewer = np.minimum(counts, len(dense) - counts) if is_multi_label else counts
    judged = np.flatnonzero(fewer >= folds)
    if len(judged) < (1 if is_multi_label else 2):
        both = " with it and without it" if is_multi_label else ""
        raise DataError(
            f"labels cannot be checked: {len(judged)} of {dense.shape[1]} labels have at least {folds} rows{both}",
            where="the training data",
            next="give more rows",
        )
    rows = np.arange(len(dense)) if is_multi_label else np.flatnonzero(dense[:, judged].any(axis=1))
    return rows, judged


def _names(chosen: np.ndarray, labels: LabelSet) -> tuple[str, ...]:
    return tuple(labels.names[label] for label in np.flatnonzero(chosen).tolist())


def _excerpt(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[: MAX_SHOWN_CHARACTERS - 1] + "…"


# -- the scores -------------------------------------------------------------------------------------------------------


def _word_counts(texts: Sequence[str]) -> Any:
    """Return TF-IDF of words and pairs of words, [rows, features] float64, sparse, rows of length one."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    n_spaces, n_characters = sum(text.count(" ") for text in texts), sum(map(len, texts))
    words = {"ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"}
    form = words if n_spaces >= _LEAST_SPACES * n_characters else {"analyzer": "char", "ngram_range": (1, 3)}
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2, max_features=_MAX_FEATURES, **form)
    try:
        return vectorizer.fit_transform(texts)
    except ValueError as error:  # scikit-learn's "empty vocabulary", or nothing is left of it
        raise DataError(
            "labels cannot be checked: no word occurs in two texts", where="the training data", next="give more rows"
        ) from error


def _standardized(features: np.ndarray) -> np.ndarray:
    """Return the features with mean 0, one spread for all, and rows about as long as those of TF-IDF: one."""
    dense = np.asarray(features, dtype=np.float64)
    spread = dense.std(axis=0)
    # A constant column of float32 has a spread of rounding alone.
    varies = spread > 1e-6 * np.abs(dense).max(axis=0, initial=0.0)
    found: np.ndarray = (dense - dense.mean(axis=0)) / np.where(varies, spread, np.inf) / np.sqrt(dense.shape[1])
    return found


def _out_of_fold(features: Any, dense: np.ndarray, parts: np.ndarray, task: str) -> np.ndarray:
    """Return [rows, labels] log-odds of each label against the rest, each row's from models of the other folds."""
    is_binary = task != "multi_label" and dense.shape[1] == 2
    columns = dense[:, 1:] if is_binary else dense  # the first label is the second one's negative
    found = np.zeros(columns.shape)
    for part in range(int(parts.max()) + 1):
        learnt, scored = np.flatnonzero(parts != part), np.flatnonzero(parts == part)
        train, test = features[learnt], features[scored]
        found[scored] = np.stack([_column(train, wanted, test) for wanted in columns[learnt].T], axis=1)
    return np.concatenate([-found, found], axis=1) if is_binary else found


def _probabilities(log_odds: np.ndarray, task: str) -> np.ndarray:
    """Return [rows, labels] in (0, 1); those of a row sum to 1 for a single label."""
    found: np.ndarray = 1 / (1 + np.exp(-np.clip(log_odds, -30, 30)))
    return found if task == "multi_label" else found / found.sum(axis=1, keepdims=True)


def _mixed(words: np.ndarray, extra: np.ndarray, dense: np.ndarray, task: str) -> np.ndarray:
    """Return the mixture of both log-odds under which the labels given are likeliest; the words may count alone."""

    def loss(share: float) -> float:
        scores = _probabilities((1 - share) * words + share * extra, task)
        return -float(np.log(np.where(dense, scores, 1 - scores)).mean())

    share = min(_SHARES, key=loss)
    return (1 - share) * words + share * extra


def _column(train: Any, wanted: np.ndarray, test: Any) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    n_positive = int(wanted.sum())
    if n_positive in (0, len(wanted)):
        # Nothing to learn: the log-odds of what was seen, with half a row added to either side.
        return np.full(test.shape[0], np.log((n_positive + 0.5) / (len(wanted) - n_positive + 0.5)))
    model = LogisticRegression(C=_C, solver="liblinear", max_iter=1000, random_state=0)
    found: np.ndarray = model.fit(train, wanted).decision_function(test)
    return found


def _fold_of_row(texts: Sequence[str], dense: np.ndarray, *, folds: int, seed: int) -> np.ndarray:
    """Return [rows] int64 the fold of each row: labels spread evenly, equal texts in the same fold."""
    keys = [folded(text) for text in texts]
    first: dict[str, int] = {}
    for row, key in enumerate(keys):
        first.setdefault(key, row)
    rows = np.fromiter(first.values(), dtype=np.int64)
    rows = rows[np.random.default_rng(seed).permutation(len(rows))]
    _, strata = np.unique(dense[rows], axis=0, return_inverse=True)
    fold_of_text = np.empty(len(texts), dtype=np.int64)
    fold_of_text[rows[np.argsort(strata.ravel(), kind="stable")]] = np.arange(len(rows)) % folds
    found: np.ndarray = fold_of_text[[first[key] for key in keys]]
    return found


# -- cleanlab ---------------------------------------------------------------------------------------------------------


def _cleanlab(name: str) -> Any:
    try:
        return import_module(f"cleanlab.{name}")
    except ImportError as error:
        raise MissingExtra(
            "cleanlab is not installed; looking for wrong labels needs it",
            where="check --labels",
            next="pip install 'headrace[labels]'",
        ) from error


def _quality(dense: np.ndarray, scores: np.ndarray, task: str) -> np.ndarray:
    """Return each row's label quality, [rows] float64 in [0, 1]."""
    if task == "multi_label":
        # Its default, a moving average from the worst label on, puts rows with many doubtful labels first: of the top
        # 5 % of one draw of toxic comments 20 % were flips then, and 83 % with the soft minimum.
        several = _cleanlab("multilabel_classification.rank")
        softmin = {"method": "softmin"}
        found = several.get_label_quality_scores(_lists(dense), scores, aggregator_kwargs=softmin)
    else:
        found = _cleanlab("rank").get_label_quality_scores(dense.argmax(axis=1), scores)
    return np.asarray(found, dtype=np.float64)


def _issues(dense: np.ndarray, scores: np.ndarray, task: str) -> np.ndarray:
    """Return [rows] bool, the rows that cleanlab calls label issues."""
    # One process: by default cleanlab starts one a core, each with a copy of the scores.
    if task == "multi_label":
        several = _cleanlab("multilabel_classification.filter")
        return np.asarray(several.find_label_issues(_lists(dense), scores, n_jobs=1), dtype=bool)
    return np.asarray(_cleanlab("filter").find_label_issues(dense.argmax(axis=1), scores, n_jobs=1), dtype=bool)


def _lists(dense: np.ndarray) -> list[list[int]]:
    return [np.flatnonzero(row).tolist() for row in dense]


def _answers(scores: np.ndarray, task: str) -> np.ndarray:
    """Return [rows, labels] bool, what the scores say themselves."""
    if task == "multi_label":
        return np.asarray(scores >= 0.5)
    return np.asarray(scores.argmax(axis=1)[:, None] == np.arange(scores.shape[1]))


def _agreement(given: np.ndarray, suggested: np.ndarray, judged: np.ndarray, task: str) -> float:
    same = (given == suggested)[:, judged]
    return float(same.mean() if task == "multi_label" else same.all(axis=1).mean())
