"""A language model in a report: what texts it read, how well it predicts them; its own page or a classifier's section."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from headrace.report.parts.section import Section
from headrace.report.parts.training import training
from headrace.report.words import count, finite, interval, listed, mapping, name, number, percent, rows

_SPLITS = {"train": "Training", "valid": "Validation", "test": "Test"}
_KINDS = {"next_word": "next words", "masked_word": "masked words"}


def language_model_head(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the head of a language model's page: one sentence with its perplexity, and what one must know of it."""
    backbone = mapping(report, "recipe", "backbone").get("name")
    known = report.get("name")
    facts = [f"language model of {_KINDS.get(str(report.get('kind')), 'words')}", _evaluated(report)]
    return {
        "title": name(known) if known else "Report",
        "facts": [fact for fact in facts if fact] + ([name(PurePath(str(backbone)).name)] if backbone else []),
        "sentence": sentence_of(report),
        "tone": "unknown",
        "tone_words": "",
        "points": [{"tone": "look", "text": note} for note in (*_notes(report), *_of_findings(report, "below"))],
        "against": None,
    }


def texts(report: Mapping[str, Any]) -> Section | None:
    """Return which files were read, and the tokens of each split; None if the report names no split."""
    splits = mapping(report, "data", "splits")
    if not splits:
        return None
    content = {
        "splits": [_split(key, mapping(splits, key)) for key in splits],
        "files": [file for key in splits for file in _files(key, mapping(splits, key))],
        "words": count(mapping(report, "data").get("words")),
    }
    return Section("texts", "Texts", content)


def language_model(report: Mapping[str, Any]) -> Section | None:
    """Return the section of a classifier's report on the language model that was trained before it, if there was one."""
    return _inner(report, "language_model", "Language model")


def backward_language_model(report: Mapping[str, Any]) -> Section | None:
    """Return the section on the language model that reads backward, if the classifier reads both ways."""
    return _inner(report, "language_model_backward", "Backward language model")


def _inner(report: Mapping[str, Any], key: str, title: str) -> Section | None:
    inner = mapping(report, key)
    if not inner:
        return None
    curves = training(inner)
    content = {
        "sentence": sentence_of(inner),
        "notes": [*_notes(inner), *_of_findings(inner, f"{key}/report.html")],
        "texts": None if (found := texts(inner)) is None else found.content,
        "curves": None if curves is None else curves.content,
    }
    return Section(key, title, content, template="language_model")


def sentence_of(report: Mapping[str, Any]) -> str:
    """Return how well a language model predicts, in one sentence."""
    metrics = mapping(report, "metrics")
    perplexity, accuracy = (interval(metrics.get(key)).value for key in ("perplexity", "accuracy"))
    if perplexity is None:
        return "Nothing was measured."
    split = {"valid": "validation"}.get(str(report.get("split")), name(report.get("split") or "validation"))
    what = "hidden tokens" if report.get("kind") == "masked_word" else "next tokens"
    said = f"On {split} texts the perplexity is {number(perplexity, 2)}: the model is as unsure as among so many words"
    return said + (f"; {percent(accuracy)} of the {what} are its first guess." if accuracy is not None else ".")


def _evaluated(report: Mapping[str, Any]) -> str:
    n_tokens = finite(report.get("n_rows"))
    return "" if n_tokens is None else f"{count(n_tokens)} predicted tokens"


def _notes(report: Mapping[str, Any]) -> list[str]:
    data = mapping(report, "data")
    weights = mapping(data, "weights")
    found = ["Texts alone were read, no label."]
    n_matched, n_words = finite(weights.get("n_matched")), finite(data.get("words"))
    if n_matched is not None and n_words is not None:
        before = name(PurePath(str(weights.get("weights"))).name)
        found.append(f"It began with {before}, which knew {count(n_matched)} of the {count(n_words)} words.")
    for split, called in (("test", "test texts"), ("valid", "texts that validate the classifier")):
        share = finite(data.get(f"{split}_texts_in_training"))
        if share:
            found.append(f"{percent(share)} of the {called} stand among the training texts, too.")
    return found


def _of_findings(report: Mapping[str, Any], place: str) -> list[str]:
    """Return a line on what the audit has found in the texts, if it is more than a note."""
    found = [mapping(one) for one in listed(report.get("findings"))]
    n = sum(one.get("severity") in ("error", "warning") for one in found)
    return [f"{n} {'thing' if n == 1 else 'things'} to look at in the texts; see {place}."] if n else []


def _split(key: str, split: Mapping[str, Any]) -> dict[str, str]:
    return {
        "name": _SPLITS.get(key, name(key)),
        "rows": count(split.get("rows")),
        "tokens": count(split.get("tokens")),
        "mean": number(finite(split.get("mean_tokens")), 0),
        "longest": count(split.get("longest")),
        "cut": percent(finite(split.get("cut_share"))),
        "unknown": percent(finite(split.get("unknown_share")), 2),
    }


def _files(key: str, split: Mapping[str, Any]) -> list[dict[str, str]]:
    found = []
    for file in listed(split.get("files")):
        source = name(PurePath(str(mapping(file).get("source"))).name)
        found.append(
            {"source": source, "split": _SPLITS.get(key, key), "rows": rows(mapping(file).get("rows"), "text")}
        )
    return found
