"""What sample reports are made of: simulated scores measured by the real metrics, and the sections of a report."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.data.examples import LabelSet
from headrace.evaluate import evaluate, monitor_value
from headrace.intervals import wilson


def kinds(n: int) -> list[str]:
    known = [
        "a lost parcel",
        "an invoice in the wrong currency",
        "opening hours",
        "a password",
        "the cancellation of a yearly plan",
    ]
    return [known[i % len(known)] for i in range(n)]


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def measured(
    targets: np.ndarray,
    scores: np.ndarray,
    names: tuple[str, ...],
    task: str,
    *,
    split: str = "test",
    resamples: int = 30,
) -> dict[str, Any]:
    found = evaluate(targets, scores, labels=LabelSet(names), task=task, split=split, resamples=resamples)
    return {"format_version": 1, "created": "2026-11-21T10:20:30Z", **found.as_dict()}


def an_interval(value: float, half: float) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "method": "bootstrap"}


def baseline_of(
    targets: np.ndarray, scores: np.ndarray, names: tuple[str, ...], task: str, metric: str, value: float
) -> dict[str, Any]:
    measured = evaluate(targets, scores, labels=LabelSet(names), task=task, split="test", resamples=30)
    theirs = measured.metric(metric).value or 0.0
    half = 1.96 * (0.12 / len(targets)) ** 0.5
    gain = an_interval(value - theirs, half)
    constant = (
        np.full(scores.shape, 0.5) if task == "multi_label" else np.tile(np.eye(len(names))[0], (len(targets), 1))
    )
    majority = {name: monitor_value(targets, constant, name, task=task) for name in measured.metrics}
    return {
        "name": "TF-IDF + logistic regression",
        "fit_s": 7.4,
        "c": 10.0,
        "metrics": measured.as_dict()["metrics"],
        "verdict": {
            "metric": metric,
            "a": {"name": "TF-IDF + logistic regression", "value": theirs},
            "b": {"name": "model", "value": value},
            "difference": gain,
            "p_value": 3.1e-5,
            "test": "mid-p McNemar" if task == "single_label" else "paired bootstrap",
            "n_rows": len(targets),
            "winner": "b" if gain["low"] > 0 else "a" if gain["high"] < 0 else None,
            "needed_rows": None,
            "sentence": "",
        },
        "majority": {"metrics": majority, "label": names[0] if task == "single_label" else None},
    }


def curves_of(is_label: np.ndarray, scores: np.ndarray, names: tuple[str, ...]) -> dict[str, Any]:
    from sklearn.metrics import precision_recall_curve, roc_curve

    roc, pr = {}, {}
    for i, name in enumerate(names):
        fpr, tpr, _ = roc_curve(is_label[:, i], scores[:, i])
        precision, recall, _ = precision_recall_curve(is_label[:, i], scores[:, i])
        roc[name] = _thin(np.stack([fpr, tpr], axis=1))
        pr[name] = _thin(np.stack([recall, precision], axis=1)[::-1])
    return {"roc": roc, "pr": pr}


def _thin(points: np.ndarray) -> list[list[float]]:
    # evenly along the curve, so that a rare label's few steps are among them
    walked = np.r_[0, np.cumsum(np.abs(np.diff(points, axis=0)).sum(axis=1))]
    chosen = np.unique(np.searchsorted(walked, np.linspace(0, walked[-1], 100)).clip(0, len(points) - 1))
    return [[round(float(x), 4), round(float(y), 4)] for x, y in points[chosen]]


def calibration_of(hits: np.ndarray, scores: np.ndarray, method: str, parameters: Any) -> dict[str, Any]:
    # what calibration would have given: scores moved towards the share that is right
    place = _tenths(scores)
    share = np.array([hits[place == i].mean() if (place == i).any() else 0.0 for i in range(10)])
    after = np.clip(0.25 * scores + 0.75 * share[place], 0.001, 0.999)

    def side(values: np.ndarray, ece: float) -> dict[str, Any]:
        bins = []
        where = _tenths(values)
        for i in range(10):
            inside = where == i
            n, k = int(inside.sum()), int(hits[inside].sum())
            low, high = wilson(k, n) or (None, None)
            bins.append(
                {
                    "low": float(values[inside].min()),
                    "high": float(values[inside].max()),
                    "mean_score": float(values[inside].mean()) if n else None,
                    "share": k / n if n else None,
                    "n": n,
                    "share_low": low,
                    "share_high": high,
                }
            )
        brier = float(((values - hits) ** 2).mean())
        clipped = np.clip(values, 1e-6, 1 - 1e-6)
        loss = float(-np.where(hits, np.log(clipped), np.log(1 - clipped)).mean())
        return {
            "ece": an_interval(ece, 0.004),
            "brier": an_interval(brier, 0.002),
            "log_loss": an_interval(loss, 0.011),
            "reliability": bins,
        }

    return {
        "method": method,
        "kept": True,
        "reason": "Cross-validated log loss 0.2301 instead of 0.2689.",
        "parameters": parameters,
        "before": side(scores, 0.0431),
        "after": side(after, 0.0097),
    }


def _tenths(values: np.ndarray) -> np.ndarray:
    """The tenth, from 0 to 9, that each value lies in when they are sorted."""
    return np.argsort(np.argsort(values, kind="stable"), kind="stable") * 10 // len(values)


def abstain_of(sure: np.ndarray, hits: np.ndarray) -> dict[str, Any]:
    order = np.argsort(-sure, kind="stable")
    risk = 1 - np.cumsum(hits[order]) / np.arange(1, len(hits) + 1)
    places = np.unique(np.linspace(20, len(hits) - 1, 100).astype(int))
    curve = [
        {"threshold": float(sure[order[i]]), "coverage": (i + 1) / len(hits), "risk": float(risk[i])} for i in places
    ]
    good = [one for one in curve if one["risk"] <= 0.045]
    chosen = good[-1] if good else curve[0]
    return {
        "error_rate": 0.05,
        "confidence": 0.9,
        "threshold": chosen["threshold"],
        "method": "the lowest score whose exact binomial bound on validation stays below the rate",
        "coverage": an_interval(chosen["coverage"], 0.008),
        "error": an_interval(chosen["risk"], 0.006),
        "curve": curve,
    }


def a_slice(column: str, value: str, found: float, n: int, overall: float, *, flagged: bool = False) -> dict[str, Any]:
    low, high = wilson(round(found * n), n) or (None, None)
    return {
        "column": column,
        "value": value,
        "n_rows": n,
        "metric": "accuracy",
        "value_of_metric": {"value": found, "low": low, "high": high, "method": "wilson"},
        "overall": overall,
        "is_flagged": flagged,
    }


def errors_of(found: list[tuple[str, str, str]], file: str) -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    rows = []
    for i, (true, said, text) in enumerate(found):
        words = [word if not place else f" {word}" for place, word in enumerate(text.split())]
        weights = rng.normal(0, 0.2, len(words)) + (rng.random(len(words)) < 0.15) * rng.normal(0.8, 0.9, len(words))
        rows.append(
            {
                "row": 57 + 313 * i,
                "where": f"{file}:{57 + 313 * i}",
                "text": text,
                "true": true,
                "predicted": said,
                "confidence": 0.9971 - 0.003 * i,
                "explained": true.split("|")[0] or said.split("|")[0],
                "attributions": [[word, float(weight)] for word, weight in zip(words, weights, strict=True)],
            }
        )
    return rows


def a_finding(severity: str, code: str, what: str, following: str, where: list[str]) -> dict[str, Any]:
    return {"severity": severity, "code": code, "what": what, "count": len(where), "where": where, "next": following}


def check_of(
    recipe: str,
    sizes: list[tuple[str, int]],
    names: tuple[str, ...],
    shares: Any,
    rng: np.random.Generator,
    *,
    length: float,
) -> dict[str, Any]:
    splits = []
    for name, n in sizes:
        lengths = np.exp(rng.normal(length, 0.62, 5000)).astype(int) + 4
        edges = [*range(0, 16 * 24 + 1, 16), max(16 * 25, int(lengths.max()) + 1)]
        counts, _ = np.histogram(lengths, bins=edges)
        splits.append(
            {
                "name": name,
                "n_rows": n,
                "labels": {label: int(n * share) for label, share in zip(names, shares, strict=True)},
                "n_without_label": 0,
                "lengths": {
                    "mean": round(float(lengths.mean()), 1),
                    "median": int(np.median(lengths)),
                    "p95": int(np.percentile(lengths, 95)),
                    "longest": int(lengths.max()),
                    "cut_share": float((lengths > 256).mean()),
                    "tokens_cut_share": 1 - float(np.minimum(lengths, 256).sum() / lengths.sum()),
                    "unknown_share": 0.000412,
                    "histogram": {"edges": edges, "counts": counts.tolist()},
                },
            }
        )
    texts = [
        {
            "where": f"{recipe}/train.csv:{1042 + 77 * i}",
            "labels": [names[i % len(names)]],
            "n_tokens": 34 + 111 * i,
            "tokens": [
                {"text": "[CLS]", "is_special": True},
                *({"text": f" {word}", "is_special": False} for word in text.split()),
                *([] if i else [{"text": "[SEP]", "is_special": True}]),
            ],
            "n_left_out": 91 * i,
            "last_tokens": [{"text": " in", "is_special": False}, {"text": " it.", "is_special": False}] if i else [],
        }
        for i, text in enumerate(
            (
                "the harbour at night is the best thing in it, and it is on screen for a minute.",
                "nobody in this film has ever mended a net. it shows, and i did not care.",
            )
        )
    ]
    return {
        "recipe": recipe,
        "task": "",
        "labels": list(names),
        "splits": splits,
        "n_steps": 2112,
        "max_length": 256,
        "suggested_max_length": 512,
        "padding": {"to_max_length": 0.41, "to_longest": 0.388, "in_micro_batches": 0.014, "n_steps": 100},
        "batch": {"n_texts": 32, "width": 256, "padding_share": 0.318, "texts": texts},
        "findings": [],
        "n_bad_rows": 0,
        "is_clean": True,
    }


def data_of(
    epochs: int, rng: np.random.Generator, names: tuple[str, ...], best: tuple[float, ...], *, n_steps: int
) -> dict[str, Any]:
    history = []
    for epoch in range(1, epochs + 1):
        main = best[min(epoch, len(best)) - 1]
        loss = 0.28 - 0.015 * epoch if names[0] == "accuracy" else 0.06 - 0.004 * epoch
        history.append(
            {
                "epoch": epoch,
                "step": n_steps * epoch // epochs,
                "seconds": 418.0 + 3 * epoch,
                "train_loss": loss * (1.4 - 0.3 * epoch / epochs),
                "learning_rate": 1e-4 * (1 - epoch / epochs),
                "train": {names[0]: min(0.995, main + 0.02 * epoch), names[1]: main, "loss": loss},
                "valid": {names[0]: main, names[1]: main - 0.01, "loss": loss + 0.02 * max(0, epoch - 2)},
            }
        )
    last = history[-1]
    return {
        "splits": {},
        "fingerprints": {"train": "4f8a" * 16, "test": "9c01" * 16},
        "bad_rows": 0,
        "training": {"history": history, "best": {"value": best[-1], "step": last["step"], "epoch": epochs - 1}},
    }


def a_language_model(perplexity: float) -> dict[str, Any]:
    """What stands in a classifier's report of a language model that was trained before it."""
    split = {
        "rows": 900,
        "tokens": 81_000,
        "mean_tokens": 90.0,
        "longest": 612,
        "cut_share": 0.0,
        "unknown_share": 0.01,
    }
    record = {"epoch": 1, "step": 40, "seconds": 12.0, "train_loss": 3.2, "valid": {"loss": 3.1}}
    return {
        "kind": "next_word",
        "split": "valid",
        "metrics": {"perplexity": {"value": perplexity}, "accuracy": {"value": 0.31}},
        "data": {
            "splits": {"train": {**split, "files": [{"source": "imdb/unsup.csv", "rows": 900}]}, "valid": split},
            "words": 12_000,
            "training": {"history": [record]},
        },
        "training_curve": {"steps": [1, 20, 40], "loss": [5.1, 3.9, 3.2], "rates": {"head": [1e-3, 2e-3, 1e-4]}},
    }


def curve_of(
    n_steps: int, rng: np.random.Generator, first: float, last: float, groups: tuple[str, ...], decay: float
) -> dict[str, Any]:
    steps = list(range(1, n_steps + 1, max(1, n_steps // 400)))
    course = last + (first - last) * np.exp(-np.array(steps) / (n_steps * 0.13))
    noisy = course * np.exp(rng.normal(0, 0.22, len(steps)))
    base = [1e-4 * min(step / (n_steps // 10), (n_steps - step) / (n_steps - n_steps // 10)) for step in steps]
    rates = {group: [rate * decay ** (len(groups) - 1 - i) for rate in base] for i, group in enumerate(groups)}
    return {"steps": steps, "loss": [round(float(one), 5) for one in noisy], "rates": rates}


def rest_of(recipe: str, task: str, *, max_length: int, monitor: str, epochs: int) -> dict[str, Any]:
    return {
        "timing": {
            "fit_s": 1254.0,
            "train_texts_per_s": 53.8,
            "n_steps": 704 * epochs,
            "peak_memory_bytes": 2_310_000_000,
        },
        "forecast": {
            "fit_s": 1190.0,
            "peak_memory_bytes": 2_050_000_000,
            "actual_fit_s": 1254.0,
            "actual_peak_memory_bytes": 2_310_000_000,
        },
        "recipe": {
            "task": task,
            "data": {
                "train": f"{recipe}/train.csv",
                "valid": "10%",
                "test": f"{recipe}/test.csv",
                "text": "text",
                "label": "label",
                "max_length": max_length,
                "truncate": "head",
            },
            "backbone": {"name": "minilm", "weights": "pretrained"},
            "head": {"name": "linear", "pool": "mean", "hidden": 0, "dropout": 0.1},
            "fit": {"epochs": epochs, "batch_size": 32, "learning_rate": 1e-4, "layer_decay": 1.0, "monitor": monitor},
            "seed": 13,
        },
        "versions": {
            "python": "3.11.7",
            "headrace": "0.1.0",
            "torch": "2.13.0",
            "transformers": "5.23.0",
            "numpy": "2.4.6",
            "optuna": None,
            "platform": "Linux-6.1-x86_64",
            "cpu": "AMD EPYC 9B14",
            "n_cores": 2,
        },
    }
