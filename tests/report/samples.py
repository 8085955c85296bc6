"""Reports as a run would write them, for the three tasks: drawn from a seed, measured by the real metrics."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import numpy as np

from report.sample_parts import (
    a_finding,
    a_language_model,
    a_slice,
    abstain_of,
    an_interval,
    baseline_of,
    calibration_of,
    check_of,
    curve_of,
    curves_of,
    data_of,
    errors_of,
    kinds,
    measured,
    rest_of,
    softmax,
)

TOXIC = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
NLI = ("contradiction", "entailment", "neutral")
SENTIMENT = ("neg", "pos")

REVIEW_ERRORS = [
    (
        "pos",
        "neg",
        "I expected to hate every minute. The poster is ugly, the title is worse, and the first ten minutes are as slow "
        "as anything I have sat through. Then the old ferryman opens his mouth and nothing is boring any more. Not one "
        "of the reviews had warned me that I would leave the cinema in tears.",
    ),
    (
        "neg",
        "pos",
        "A great cast, a wonderful score, a director whose last film I adored, and the most beautiful harbour in Europe. "
        "How do you waste all that? Somebody found out how.",
    ),
    (
        "neg",
        "pos",
        "My brother laughed all the way through. He also laughs at the safety announcement on aeroplanes, so there is "
        "that. Brilliant, if you are him.",
    ),
    ("pos", "neg", "Terrible people, terrible choices, a terrible winter. I have watched it four times."),
    (
        "neg",
        "pos",
        "The restoration is superb: every grain of the print is there, the colours glow, and the commentary is a joy. "
        "If only there were a film under it.",
    ),
]
PAIR_ERRORS = [
    (
        "neutral",
        "entailment",
        "The committee met twice in March and once in April, and nobody could say afterwards what had been decided.",
        "The committee reached no decision in the spring.",
    ),
    (
        "contradiction",
        "entailment",
        "Unlike the upper road, the lower one is open in winter, except when the reservoir is being drained.",
        "The lower road is open all winter, whatever happens at the reservoir.",
    ),
    (
        "entailment",
        "neutral",
        "She sold the last of the three boats in autumn.",
        "By winter she owned none of the boats.",
    ),
]
TOXIC_ERRORS = [
    ("", "toxic|insult", "You would have to be an idiot to park there in winter; I was that idiot, twice."),
    ("toxic", "", "Go on then, keep writing about things you never read. It suits you so well."),
    ("", "toxic|obscene", "The lyrics quoted in the second paragraph are crude, but they are what the song says."),
    ("threat", "", "I know the street you live in, and so will everyone else soon."),
]


def reviews(n_rows: int = 6000, *, epochs: int = 3) -> dict[str, Any]:
    """A report of single label with two labels, all sections filled."""
    return copy.deepcopy(_reviews(n_rows, epochs))


@lru_cache(maxsize=4)
def _reviews(n_rows: int, epochs: int) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    targets = rng.integers(0, 2, n_rows)
    margin = (2 * targets - 1) * 2.6 + rng.normal(0, 2.0, n_rows)
    scores = softmax(np.stack([-margin, margin], axis=1))
    report = measured(targets, scores, SENTIMENT, "single_label")
    report["curves"] = curves_of(targets[:, None] == np.arange(2), scores, SENTIMENT)
    accuracy = report["metrics"]["accuracy"]["value"]
    base = softmax(np.stack([-margin, margin], axis=1) * 0.5 + rng.normal(0, 0.7, (n_rows, 2)))
    report["baseline"] = baseline_of(targets, base, SENTIMENT, "single_label", "accuracy", accuracy)
    report["decide"] = {
        "calibration": calibration_of(
            targets == scores.argmax(1), scores.max(1), "temperature", {"temperature": 1.618}
        ),
        "out_of_fold": False,
        "thresholds": None,
        "abstain": abstain_of(scores.max(1), scores.argmax(1) == targets),
    }
    report["slices"] = [
        a_slice("length", "more than 512 tokens", 0.842, 612, accuracy, flagged=True),
        a_slice("cut", "cut at 256 tokens", 0.884, 2731, accuracy, flagged=True),
        a_slice("length", "up to 32 tokens", 0.871, 83, accuracy),
        a_slice("year", "1950 to 1959", 0.905, 204, accuracy),
        a_slice("cut", "whole", 0.921, 3269, accuracy),
        a_slice("length", "129 to 256 tokens", 0.926, 1904, accuracy),
    ]
    without = copy.deepcopy(report["metrics"])
    for one in without.values():
        for key in ("value", "low", "high"):
            one[key] = None if one[key] is None else one[key] - 0.0004
    report["leaks"] = {"n_exact": 123, "n_near": 18, "metrics_without": without, "n_rows_without": n_rows - 141}
    report["errors"] = errors_of(REVIEW_ERRORS, "aclImdb/test.csv")
    report["findings"] = [
        a_finding(
            "error",
            "test_in_train",
            "123 rows of the test data (2.05%) have a text that is in the training data too",
            "leave these rows out of the training data; metrics with them flatter the model",
            [
                f"aclImdb/test.csv:{test} = aclImdb/train.csv:{train}"
                for test, train in ((18, 301), (402, 77), (977, 8420))
            ],
        ),
        a_finding(
            "note",
            "duplicate",
            "96 rows of the training data repeat an earlier row, text and labels alike",
            "leave them out if they are not meant to count twice; the automatic split keeps equal texts on one side",
            ["aclImdb/train.csv:2210 = aclImdb/train.csv:12", "aclImdb/train.csv:5117 = aclImdb/train.csv:91"],
        ),
    ]
    report["diagnoses"] = [
        {
            "code": "learns_by_heart",
            "severity": "warning",
            "what": "In the last epoch the training accuracy is 0.989 and the validation accuracy 0.913.",
            "next": "fewer epochs, more dropout (head.dropout: 0.3), or more rows",
        }
    ]
    n = n_rows * 4
    report["check"] = check_of(
        "imdb",
        [("train", int(n * 0.9)), ("valid", int(n * 0.1)), ("test", n_rows)],
        SENTIMENT,
        [0.5, 0.5],
        rng,
        length=5.2,
    )
    report["data"] = data_of(epochs, rng, ("accuracy", "f1_macro", "loss"), (0.90, 0.905, 0.913), n_steps=704 * epochs)
    report["training_curve"] = curve_of(704 * epochs, rng, 0.69, 0.09, ("embeddings", "layers 0-5", "head"), 1.0)
    report |= rest_of("imdb", "single_label", max_length=256, monitor="accuracy", epochs=epochs)
    return report


def pairs(n_rows: int = 2500) -> dict[str, Any]:
    """A report of single label with three labels over pairs of texts, without a gain over nothing in slices."""
    return copy.deepcopy(_pairs(n_rows))


@lru_cache(maxsize=4)
def _pairs(n_rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(6)
    targets = rng.integers(0, 3, n_rows)
    scores = softmax(1.9 * np.eye(3)[targets] + rng.normal(0, 1.05, (n_rows, 3)))
    report = measured(targets, scores, NLI, "single_label")
    report["curves"] = curves_of(targets[:, None] == np.arange(3), scores, NLI)
    accuracy = report["metrics"]["accuracy"]["value"]
    base = softmax(0.35 * np.eye(3)[targets] + rng.normal(0, 0.9, (n_rows, 3)))
    report["baseline"] = baseline_of(targets, base, NLI, "single_label", "accuracy", accuracy)
    report["decide"] = {
        "calibration": calibration_of(targets == scores.argmax(1), scores.max(1), "temperature", {"temperature": 1.08})
        | {"kept": False, "reason": "Cross-validated log loss 0.6112 instead of 0.6109: no gain.", "after": None},
        "thresholds": None,
        "abstain": {
            "error_rate": 0.05,
            "confidence": 0.9,
            "threshold": None,
            "method": "Learn then Test with exact binomial bounds on half of the validation rows",
            "reason": "No threshold keeps errors at 0.05 with confidence 0.9 on 1,467 validation rows.",
            "coverage": None,
            "error": None,
            "curve": abstain_of(scores.max(1), scores.argmax(1) == targets)["curve"],
        },
    }
    report["slices"] = [
        a_slice("genre", "telephone", 0.829, 502, accuracy),
        a_slice("genre", "government", 0.841, 489, accuracy),
        a_slice("length", "65 to 128 tokens", 0.818, 214, accuracy),
        a_slice("genre", "travel", 0.852, 511, accuracy),
    ]
    report["leaks"] = {"n_exact": 0, "n_near": 0, "metrics_without": {}, "n_rows_without": n_rows}
    report["errors"] = [
        {
            "row": 211 + 91 * i,
            "where": f"mnli/matched.jsonl:{211 + 91 * i}",
            "text": premise,
            "pair": hypothesis,
            "true": true,
            "predicted": said,
            "confidence": 0.991 - 0.004 * i,
            "attributions": None,
        }
        for i, (true, said, premise, hypothesis) in enumerate(PAIR_ERRORS)
    ]
    report["findings"] = []
    report["diagnoses"] = []
    report["check"] = check_of(
        "mnli", [("train", 26406), ("valid", 2934), ("test", n_rows)], NLI, [0.33, 0.34, 0.33], rng, length=3.6
    )
    report["data"] = data_of(1, rng, ("accuracy", "f1_macro", "loss"), (0.781,), n_steps=825)
    report["training_curve"] = curve_of(825, rng, 1.1, 0.62, (*tuple(f"layer {i}" for i in range(12)), "head"), 0.9)
    report |= rest_of("mnli", "single_label", max_length=128, monitor="auto", epochs=1)
    return report


def toxic(n_rows: int = 4000) -> dict[str, Any]:
    """A report of multi-label with six labels, two of them rare."""
    return copy.deepcopy(_toxic(n_rows))


@lru_cache(maxsize=4)
def _toxic(n_rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    shares = np.array([0.096, 0.010, 0.053, 0.003, 0.049, 0.009])
    is_bad = rng.random(n_rows) < 0.1
    targets = (is_bad[:, None] & (rng.random((n_rows, 6)) < shares / 0.1)).astype(np.int64)
    logits = -4.2 + 3.6 * targets + 1.1 * is_bad[:, None] + rng.normal(0, 1.5, (n_rows, 6))
    scores = 1 / (1 + np.exp(-logits))
    report = measured(targets, scores, TOXIC, "multi_label")
    report["curves"] = curves_of(targets == 1, scores, TOXIC)
    value = report["metrics"]["roc_auc_macro"]["value"]
    base = 1 / (1 + np.exp(-(logits * 0.8 + rng.normal(0, 0.55, (n_rows, 6)))))
    report["baseline"] = baseline_of(targets, base, TOXIC, "multi_label", "roc_auc_macro", value)
    difference = report["baseline"]["verdict"]["difference"]
    difference |= {"value": 0.0041, "low": -0.0062, "high": 0.0139}
    report["baseline"]["verdict"] |= {"winner": None, "p_value": 0.41, "needed_rows": 21000}
    report["decide"] = {
        "calibration": calibration_of(targets.ravel() == 1, scores.ravel(), "platt", None),
        "thresholds": {
            "rule": "best F1 on validation, cross-fitted",
            "kept": True,
            "reason": "Cross-validated F1 rises from 0.512 to 0.561.",
            "default": 0.5,
            "values": dict(zip(TOXIC, (0.46, 0.21, 0.43, 0.12, 0.38, 0.19), strict=True)),
            "tried": dict(zip(TOXIC, (0.46, 0.21, 0.43, 0.12, 0.38, 0.19), strict=True)),
            "before": {"f1_macro": an_interval(0.514, 0.031), "f1_micro": an_interval(0.703, 0.022)},
            "after": {"f1_macro": an_interval(0.558, 0.034), "f1_micro": an_interval(0.711, 0.021)},
            "gain": {"f1_macro": an_interval(0.044, 0.029), "f1_micro": an_interval(0.008, 0.011)},
        },
        "abstain": None,
    }
    report["slices"] = []
    report["leaks"] = None
    report["errors"] = errors_of(TOXIC_ERRORS, "toxic/train.csv.gz")
    report["findings"] = [
        a_finding(
            "warning",
            "rare_label",
            "'threat' has 11 rows in the test data and 'severe_toxic' 18: their ROC AUC says little",
            "add rows of these labels, or judge them together with others",
            ["threat", "severe_toxic"],
        )
    ]
    report["diagnoses"] = [
        {
            "code": "threshold_at_border",
            "severity": "note",
            "what": "The threshold of 'threat' lies at the lower border of its scores.",
            "next": "more rows with the label",
        }
    ]
    together = (targets.T @ targets).astype(int) * 4
    report["check"] = check_of(
        "toxic", [("train", 14400), ("valid", 1600), ("test", n_rows)], TOXIC, shares, rng, length=4.1
    )
    report["check"]["co_occurrence"] = {"labels": list(TOXIC), "counts": together.tolist()}
    for split in report["check"]["splits"]:
        split["n_without_label"] = int(split["n_rows"] * 0.898)
    report["data"] = data_of(2, rng, ("roc_auc_macro", "f1_macro", "loss"), (0.951, 0.963), n_steps=900)
    report["training_curve"] = curve_of(900, rng, 0.45, 0.045, ("embeddings", "layers", "head"), 0.38)
    report |= rest_of("toxic", "multi_label", max_length=128, monitor="auto", epochs=2)
    return report


def both_ways() -> dict[str, Any]:
    """The report of a classifier over two language models, one of which reads backward."""
    report = reviews(600)
    report["language_model"], report["language_model_backward"] = a_language_model(21.4), a_language_model(22.9)
    return report


def many(n_labels: int = 26, n_rows: int = 3000) -> dict[str, Any]:
    """A report with many labels of long names, measured, without anything optional but the curves."""
    rng = np.random.default_rng(8)
    names = tuple(f"{i:02d} request about {kind}" for i, kind in zip(range(n_labels), kinds(n_labels), strict=True))
    targets = rng.integers(0, n_labels, n_rows)
    scores = softmax(3.4 * np.eye(n_labels)[targets] + rng.normal(0, 1.2, (n_rows, n_labels)))
    report = measured(targets, scores, names, "single_label", resamples=30)
    report["curves"] = curves_of(targets[:, None] == np.arange(n_labels), scores, names)
    shares = np.full(n_labels, 1 / n_labels)
    report["check"] = check_of("tickets", [("train", 9000), ("valid", 1000)], names, shares, rng, length=3.9)
    return report


def bare(n_rows: int = 12) -> dict[str, Any]:
    """What the smallest run leaves: an evaluation of a few validation rows and nothing else."""
    rng = np.random.default_rng(9)
    targets = np.arange(n_rows) % 2
    scores = softmax(rng.normal(0, 1, (n_rows, 2)) + np.eye(2)[targets])
    return measured(targets, scores, SENTIMENT, "single_label", split="valid")
