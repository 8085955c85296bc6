"""A bundle as a model folder of transformers: equal logits through both of its doors, and honest refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from headrace.bundle import Bundle, save_bundle
from headrace.data.examples import LabelSet
from headrace.decide.calibration import Calibration
from headrace.decide.decision import Decision
from headrace.errors import BundleError
from headrace.export import Exported, to_transformers
from headrace.head import HeadSettings
from headrace.model import load_classifier
from headrace.predict import score
from headrace.text.subwords import Subwords
from tiny import FAMILIES, SENTENCES, tiny_folder

LABELS = ("bad", "good", "so-so")
TEXTS = [*SENTENCES, "", "☃", "the plot " * 60]
PAIRS = list(zip(SENTENCES, reversed(SENTENCES), strict=True))


def made(
    tmp_path: Path,
    family: str,
    head: HeadSettings,
    *,
    multi_label: bool = False,
    truncate: str = "head",
    pair: bool = False,
) -> Bundle:
    source = tiny_folder(tmp_path, family)
    torch.manual_seed(1)
    classifier = load_classifier(backbone=str(source), head=head, labels=LabelSet(LABELS), multi_label=multi_label)
    with torch.no_grad():  # a fresh head has a spread of 0.02: make the logits differ
        for _, parameters in classifier.groups()[-1:]:
            for weight in parameters:
                weight.add_(torch.randn_like(weight) * 0.3)
    return save_bundle(
        tmp_path / "bundle",
        classifier=classifier,
        subwords=Subwords.load(source),
        task="multi_label" if multi_label else "single_label",
        text={"max_length": 48, "truncate": truncate, "columns": ["a", "b"] if pair else ["text"]},
        recipe_yaml="",
    )


def logits_of(bundle: Bundle, texts: Any) -> np.ndarray:
    text = bundle.about.text
    encoded = bundle.subwords.encode(texts, max_length=text.max_length, truncate=text.truncate)
    tokens = {"pad_id": bundle.subwords.pad_id, "uses_token_types": bundle.subwords.uses_token_types}
    return score(bundle.classifier, encoded, **tokens)


def assert_equal_through_both_doors(bundle: Bundle, exported: Exported, texts: list[Any]) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(exported.folder)
    tokenizer = AutoTokenizer.from_pretrained(exported.folder)
    columns = list(zip(*texts, strict=True)) if bundle.is_pair else [texts]
    inputs = tokenizer(*map(list, columns), truncation=True, padding=True, return_tensors="pt")
    with torch.inference_mode():
        theirs = model(**inputs).logits.numpy()
    ours = logits_of(bundle, texts)
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5)
    assert np.ptp(ours, axis=0).min() > 0.01  # the texts do not all get the same logits

    classify = pipeline("text-classification", str(exported.folder), device="cpu")
    given = [{"text": first, "text_pair": second} for first, second in texts] if bundle.is_pair else texts
    answers = classify(given, truncation=True, top_k=None)
    named = [{answer["label"]: answer["score"] for answer in answers_of_text} for answers_of_text in answers]
    assert set(named[0]) == set(LABELS)
    piped = np.array([[scores[name] for name in LABELS] for scores in named])
    np.testing.assert_allclose(piped, bundle.scores(texts), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_native_heads_give_equal_logits_and_our_label_names(tmp_path: Path, family: str) -> None:
    bundle = made(tmp_path, family, HeadSettings(name="native"))
    exported = to_transformers(bundle, tmp_path / "out")
    assert_equal_through_both_doors(bundle, exported, TEXTS)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "good", "2": "so-so"}
    assert config["problem_type"] == "single_label_classification"
    assert exported.largest_difference <= 1e-5


@pytest.mark.parametrize(
    ("family", "head"),
    [
        ("bert", HeadSettings(pool="pooler")),
        ("bert", HeadSettings(name="logistic", pool="pooler")),
        ("roberta", HeadSettings(pool="pooler")),
        ("distilbert", HeadSettings(pool="cls", hidden=32, dropout=0.25)),
        ("deberta-v2", HeadSettings(pool="cls", hidden=32)),
    ],
)
def test_heads_with_a_counterpart_are_mapped_exactly(tmp_path: Path, family: str, head: HeadSettings) -> None:
    bundle = made(tmp_path, family, head)
    before = {name: tensor.clone() for name, tensor in bundle.classifier.state_dict().items()}
    exported = to_transformers(bundle, tmp_path / "out")
    assert_equal_through_both_doors(bundle, exported, TEXTS)
    after = bundle.classifier.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_the_heads_dropout_goes_along_for_those_who_train_on(tmp_path: Path) -> None:
    bundle = made(tmp_path, "distilbert", HeadSettings(pool="cls", hidden=32, dropout=0.25))
    to_transformers(bundle, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["seq_classif_dropout"] == 0.25


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_pairs_and_multi_label_go_the_same_way(tmp_path: Path, family: str) -> None:
    bundle = made(tmp_path, family, HeadSettings(name="native"), multi_label=True, pair=True)
    exported = to_transformers(bundle, tmp_path / "out")
    assert_equal_through_both_doors(bundle, exported, PAIRS)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert any("top_k=None" in note for note in exported.notes)


def test_a_text_cut_at_its_head_is_cut_there_too(tmp_path: Path) -> None:
    bundle = made(tmp_path, "bert", HeadSettings(name="native"), truncate="tail")
    exported = to_transformers(bundle, tmp_path / "out")
    assert_equal_through_both_doors(bundle, exported, [*SENTENCES, "the plot is bad " * 20 + "what a lovely end"])


def test_head_tail_is_said_to_be_lost(tmp_path: Path) -> None:
    bundle = made(tmp_path, "bert", HeadSettings(name="native"), truncate="head_tail")
    notes = to_transformers(bundle, tmp_path / "out").notes
    assert any("head_tail" in note and "keeps the beginning" in note for note in notes)
    assert "head_tail" in (tmp_path / "out" / "README.md").read_text()


def test_what_a_decision_adds_is_said_to_be_lost(tmp_path: Path) -> None:
    plain = made(tmp_path, "bert", HeadSettings(name="native"))
    cooled = Calibration("temperature", "single_label", {"temperature": 3.0})
    decision = Decision(plain.labels, cooled, abstain_below=0.7, error_rate=0.1, confidence=0.9)
    bundle = Bundle(plain.classifier, plain.subwords, replace(plain.about, decision=decision.as_dict()))
    exported = to_transformers(bundle, tmp_path / "out")
    assert exported.largest_difference <= 1e-5  # the logits are the same all the same
    assert np.abs(plain.scores(TEXTS) - bundle.scores(TEXTS)).max() > 0.05
    (calibration,) = [note for note in exported.notes if "calibrated" in note]
    assert "temperature" in calibration
    assert any("not sure" in note and "transformers always answers" in note for note in exported.notes)
    readme = (tmp_path / "out" / "README.md").read_text()
    assert all(note in readme for note in exported.notes)
    without = to_transformers(plain, tmp_path / "plain").notes
    assert not [note for note in without if "calibrated" in note or "not sure" in note]


def test_thresholds_of_a_decision_are_said_to_be_lost(tmp_path: Path) -> None:
    plain = made(tmp_path, "bert", HeadSettings(name="native"), multi_label=True)
    decision = Decision(plain.labels, Calibration("none", "multi_label"), thresholds=(0.25, 0.5, 0.75))
    bundle = Bundle(plain.classifier, plain.subwords, replace(plain.about, decision=decision.as_dict()))
    notes = to_transformers(bundle, tmp_path / "out").notes
    (note,) = [note for note in notes if "threshold" in note]
    assert "0.25" in note
    assert "transformers keeps none" in note
    assert not [note for note in notes if "calibrated" in note]


@pytest.mark.parametrize(
    ("family", "head", "advice"),
    [
        ("bert", HeadSettings(pool="mean"), "train with `head: native`, or with `head: {pool: pooler}`"),
        ("bert", HeadSettings(pool="cls", hidden=32), "train with `head: native`, or with `head: {pool: pooler}`"),
        ("distilbert", HeadSettings(pool="cls"), "or with `head: {pool: cls, hidden: 32}`"),
        ("distilbert", HeadSettings(pool="cls", hidden=16), "or with `head: {pool: cls, hidden: 32}`"),
        ("electra", HeadSettings(pool="cls", hidden=32), "train with `head: native`"),
        ("modernbert", HeadSettings(pool="mean"), "train with `head: native`"),
    ],
)
def test_a_head_without_counterpart_is_refused_with_the_way_out(
    tmp_path: Path, family: str, head: HeadSettings, advice: str
) -> None:
    bundle = made(tmp_path, family, head)
    with pytest.raises(BundleError) as caught:
        to_transformers(bundle, tmp_path / "out")
    assert caught.value.what == (
        f"the head {{name: linear, pool: {head.pool}, hidden: {head.hidden}}} has no counterpart in transformers' '{family}'"
    )
    assert caught.value.next.endswith(advice)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_logits_is_never_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = made(tmp_path, "bert", HeadSettings(name="native"))
    monkeypatch.setattr("headrace.export.TOLERANCE", -1.0)
    with pytest.raises(BundleError, match="logits differ from the bundle's by"):
        to_transformers(bundle, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bert", "bundle"]
