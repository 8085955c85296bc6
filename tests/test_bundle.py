"""A bundle goes out and comes back to the bit, stands on its own, and refuses whatever is not what was written."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from headrace.bundle import Bundle, prove_in_fresh_process, save_bundle
from headrace.bundle.manifest import write_manifest
from headrace.bundle.weights import Unfilled
from headrace.data.examples import LabelSet
from headrace.decide.calibration import Calibration
from headrace.decide.decision import Decision
from headrace.errors import BundleError, DataError, RecipeError
from headrace.head import HeadSettings
from headrace.model import load_classifier
from headrace.text.subwords import Subwords
from tiny import FAMILIES, SENTENCES, tiny_folder

FILES = [
    "bundle.json",
    "config.json",
    "labels.json",
    "manifest.json",
    "model.safetensors",
    "recipe.yaml",
    "tokenizer.json",
]


def made(
    folder: Path,
    *,
    family: str = "bert",
    head: HeadSettings | None = None,
    labels: tuple[str, ...] = ("bad", "good", "so-so"),
    task: str = "single_label",
    **content: Any,
) -> Bundle:
    source = tiny_folder(folder, family)
    torch.manual_seed(2)
    classifier = load_classifier(
        backbone=str(source),
        head=head or HeadSettings(pool="mean"),
        labels=LabelSet(labels),
        multi_label=task == "multi_label",
    )
    with torch.no_grad():
        for weight in classifier.groups()[-1][1]:
            weight.add_(torch.randn_like(weight) * 0.3)
    settings: dict[str, Any] = {"text": {"max_length": 32, "truncate": "head"}, "recipe_yaml": "seed: 13\n"}
    return save_bundle(
        folder / "bundle", classifier=classifier, subwords=Subwords.load(source), task=task, **{**settings, **content}
    )


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return made(tmp_path_factory.mktemp("original"), data={"train": "abc"}, metrics={"accuracy": {"value": 0.5}})


@pytest.fixture
def folder(original: Bundle, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(str(original.folder), tmp_path / "bundle"))


def refused(folder: Path) -> BundleError:
    """Load a bundle that must be refused, in less than a second, and return the error."""
    started = time.process_time()
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    assert time.process_time() - started < 1.0
    assert caught.value.where is not None
    assert caught.value.next
    return caught.value


def change_json(path: Path, change: Any) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


# -- out and back ------------------------------------------------------------------------------------------------------


def test_a_bundle_is_these_files_and_says_what_it_is(original: Bundle) -> None:
    assert original.folder is not None
    assert sorted(path.name for path in original.folder.iterdir()) == FILES
    described = json.loads((original.folder / "bundle.json").read_text())
    assert described["format"] == 1
    assert described["kind"] == "classifier"
    assert described["task"] == "single_label"
    assert described["head"] == {"name": "linear", "pool": "mean", "hidden": 0, "dropout": 0.1}
    assert described["text"]["max_length"] == 32
    assert described["data"] == {"train": "abc"}
    assert described["metrics"] == {"accuracy": {"value": 0.5}}
    assert set(described["versions"]) >= {"headrace", "python", "torch", "transformers", "tokenizers"}
    assert described["created"].endswith("+00:00")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", ["native", "linear"])
def test_scores_come_back_to_the_bit_in_each_family(tmp_path: Path, family: str, head: str) -> None:
    before = made(tmp_path, family=family, head=HeadSettings(name=head))
    state = torch.get_rng_state()
    after = Bundle.load(tmp_path / "bundle")
    np.testing.assert_array_equal(after.scores(SENTENCES), before.scores(SENTENCES))
    assert after.about == before.about
    assert after.labels == ("bad", "good", "so-so")
    assert after.task == "single_label"
    assert after.recipe_yaml == "seed: 13\n"
    assert torch.equal(torch.get_rng_state(), state)  # nothing random was drawn
    assert not any(module.training for module in after.classifier.modules())


def test_a_saved_bundle_can_be_saved_again(original: Bundle, tmp_path: Path) -> None:
    assert original.folder is not None
    Bundle.load(original.folder).save(tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (original.folder / name).read_bytes()


def test_a_bundle_does_not_change_with_the_folder_that_it_came_from(folder: Path) -> None:
    bundle = Bundle.load(folder)
    before = bundle.scores(SENTENCES)
    (folder / "model.safetensors").write_bytes(b"")
    np.testing.assert_array_equal(bundle.scores(SENTENCES), before)


def test_a_family_that_draws_until_it_is_content_still_ends() -> None:
    with torch.random.fork_rng(devices=[]), Unfilled(1):
        weight = torch.full((4, 4), 9.0)
        torch.nn.init.trunc_normal_(weight, mean=3.0, std=1.0, a=2.0, b=4.0)
    assert ((weight >= 2.0) & (weight <= 4.0)).all()


@pytest.mark.slow
@pytest.mark.fresh_process
def test_a_fresh_process_gives_the_same_scores(original: Bundle) -> None:
    texts = [*SENTENCES, "", "\ud800"]
    prove_in_fresh_process(str(original.folder), texts, original.scores(texts))


@pytest.mark.slow
@pytest.mark.fresh_process
def test_a_proof_that_fails_says_by_how_much(folder: Path, original: Bundle) -> None:
    expected = original.scores(SENTENCES)
    expected[3, 1] += 0.25
    with pytest.raises(BundleError, match=r"gives scores that differ by up to 0\.25 in a fresh process"):
        prove_in_fresh_process(folder, SENTENCES, expected)
    (folder / "labels.json").unlink()
    with pytest.raises(BundleError, match=r"cannot be used in a fresh process: the bundle's labels\.json is missing"):
        prove_in_fresh_process(folder, SENTENCES, expected)


def test_predicting_imports_nothing_that_takes_seconds(original: Bundle) -> None:
    slow = ("lightning", "pytorch_lightning", "datasets", "sklearn", "pandas", "scipy", "transformers", "torch._dynamo")
    code = (
        "import sys, headrace\n"
        "assert 'torch' not in sys.modules\n"
        "headrace.evaluate; headrace.Prediction\n"
        "print(headrace.Bundle.load(sys.argv[1]).predict('A good film.').label)\n"
        f"print([name for name in {slow} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(original.folder)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.splitlines() == [original.predict("A good film.").label, "[]"]
    assert done.stderr == ""


# -- predicting --------------------------------------------------------------------------------------------------------


def test_predictions_come_in_input_order_with_scores_by_name(original: Bundle) -> None:
    found = original.predict(SENTENCES)
    scores = original.scores(SENTENCES)
    assert [one.index for one in found] == scores.argmax(axis=1).tolist()
    assert len({one.label for one in found}) > 1
    for one, row in zip(found, scores, strict=True):
        assert one.label == original.labels[int(row.argmax())]
        assert list(one.scores.values()) == row.tolist()
        assert list(one.scores) == ["bad", "good", "so-so"]
        assert sum(one.scores.values()) == pytest.approx(1.0)
    assert original.predict(SENTENCES[2]).scores == pytest.approx(found[2].scores, abs=1e-5)
    assert original.predict([]) == []


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("", ("empty",)),
        (" \n\t  ", ("empty",)),
        ("☃ ☃ ☃", ("unknown",)),
        ("\ud800", ("empty", "surrogate")),
        ("🙂 שלום عالم", ("unknown",)),
        ("e" + "\u0301" * 10_000, None),
        ("a" * 10_000, None),
        ("a\x00b", ()),
        ("film " * 100, ("cut",)),
        ("\u200b\u202e", None),
    ],
)
def test_every_text_has_a_prediction(original: Bundle, text: str, flags: tuple[str, ...] | None) -> None:
    prediction = original.predict(text)
    assert prediction.label in original.labels
    assert all(np.isfinite(score) for score in prediction.scores.values())
    if flags is not None:
        assert prediction.flags == flags


def test_texts_may_be_an_array_or_a_series(original: Bundle) -> None:
    pandas = pytest.importorskip("pandas")
    expected = original.scores(SENTENCES)
    np.testing.assert_array_equal(original.scores(np.array(SENTENCES)), expected)
    np.testing.assert_array_equal(original.scores(pandas.Series(SENTENCES)), expected)
    np.testing.assert_array_equal(original.scores(tuple(SENTENCES)), expected)


@pytest.mark.parametrize(
    ("texts", "what", "where"),
    [
        (["a", None], "None is not a text", "texts[1]"),
        (["a", ("b", "c")], "('b', 'c') is not a text", "texts[1]"),
        ([1.5], "1.5 is not a text", "texts[0]"),
        (None, "the texts are one NoneType, not a list of texts", "texts"),
        ({"a": "b"}, "the texts are one dict, not a list of texts", "texts"),
    ],
)
def test_what_is_no_text_is_named(original: Bundle, texts: Any, what: str, where: str) -> None:
    with pytest.raises(DataError) as caught:
        original.predict(texts)
    assert (caught.value.what, caught.value.where) == (what, where)


def test_pairs_are_taken_as_pairs(tmp_path: Path) -> None:
    bundle = made(tmp_path, text={"max_length": 32, "columns": ["premise", "hypothesis"], "is_pair": True})
    loaded = Bundle.load(tmp_path / "bundle")
    pairs = [("A man plays.", "No one plays."), ("No one plays.", "A man plays."), ("", "x")]
    found = loaded.scores(pairs)
    np.testing.assert_array_equal(found, bundle.scores(pairs))
    assert np.abs(found[0] - found[1]).max() > 1e-4  # the order counts
    assert loaded.predict(pairs)[2].flags == ("empty",)
    with pytest.raises(DataError) as caught:
        loaded.predict(["a single text"])
    assert caught.value.what == "'a single text' is not a pair (premise, hypothesis)"
    with pytest.raises(DataError, match="one pair, not a list of pairs"):
        loaded.predict(("A man plays.", "No one plays."))


def test_multi_label_uses_the_bundles_threshold_unless_one_is_given(tmp_path: Path) -> None:
    made(tmp_path, labels=("toxic", "insult"), task="multi_label", threshold={"toxic": 0.0, "insult": 1.0})
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.predict("A good film.").labels == ("toxic",)
    assert bundle.predict("A good film.", threshold=1.0).labels == ()
    assert bundle.predict("A good film.", threshold=0.0).labels == ("toxic", "insult")
    assert bundle.predict("A good film.", threshold=0.0).label is None
    with pytest.raises(RecipeError, match="there is no label 'toxik'"):
        bundle.predict("A good film.", threshold={"toxik": 0.5})


def test_embeddings_are_of_the_last_hidden_layer(original: Bundle) -> None:
    pooled = original.embed(SENTENCES)
    assert isinstance(pooled, np.ndarray)
    assert pooled.shape == (len(SENTENCES), 32)
    each = original.embed(SENTENCES, "none")
    np.testing.assert_allclose(pooled, [vectors.mean(axis=0) for vectors in each], rtol=0, atol=1e-5)
    np.testing.assert_allclose(original.embed(SENTENCES[0], "cls"), [each[0][0]], rtol=0, atol=1e-5)


def test_an_explanation_is_of_the_answer_or_of_a_given_label(original: Bundle) -> None:
    found = original.explain(SENTENCES[0])
    assert found.label == original.predict(SENTENCES[0]).label
    assert found.texts == (SENTENCES[0],)
    assert found.is_exact
    other = next(name for name in original.labels if name != found.label)
    assert original.explain(SENTENCES[0], other).label == other
    assert "a\x00b" not in original.explain("a\x00b good film").texts[0]  # it reads what prediction reads
    with pytest.raises(RecipeError, match="there is no label 'godo'"):
        original.explain(SENTENCES[0], "godo")
    with pytest.raises(DataError, match="is not a text"):
        original.explain(("a", "b"))


def test_without_an_answer_the_highest_logit_is_explained(tmp_path: Path, original: Bundle) -> None:
    decision = Decision(original.labels, Calibration(), abstain_below=1.0, error_rate=0.1, confidence=0.9)
    careful = Bundle(original.classifier, original.subwords, replace(original.about, decision=decision.as_dict()))
    assert careful.predict(SENTENCES[0]).label is None
    assert careful.explain(SENTENCES[0]).label == original.predict(SENTENCES[0]).label
    tagged = made(tmp_path, labels=("toxic", "insult"), task="multi_label")
    scores = tagged.scores([SENTENCES[0]])[0]
    assert tagged.explain(SENTENCES[0]).label == tagged.labels[int(scores.argmax())]


# -- files that are not what was written -------------------------------------------------------------------------------


def test_a_folder_that_is_no_bundle_says_which_one_may_be_meant(folder: Path, tmp_path: Path) -> None:
    error = refused(tmp_path)
    assert error.what == f"{str(tmp_path)!r} is no bundle: it holds no manifest.json"
    assert error.next == f"did you mean {str(folder)!r}? A run's bundle lies in its folder `bundle`"
    error = refused(tmp_path / "bundel")
    assert error.what == f"there is no bundle {str(tmp_path / 'bundel')!r}"
    assert error.next == f"did you mean {str(folder)!r}?"


@pytest.mark.parametrize("name", [name for name in FILES if name != "manifest.json"])
def test_a_missing_truncated_longer_or_changed_file_is_named(folder: Path, name: str) -> None:
    path = folder / name
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    assert refused(folder).what == (
        f"the bundle's {name} is truncated: {len(good) - 1:,} bytes, {len(good):,} in the manifest"
    )
    path.write_bytes(good + b" ")
    assert refused(folder).what.startswith(f"the bundle's {name} is longer than it was: {len(good) + 1:,} bytes")
    path.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    assert refused(folder).what == f"the bundle's {name} was changed: its sha256 is not the manifest's"
    path.unlink()
    error = refused(folder)
    assert error.what == f"the bundle's {name} is missing"
    assert error.where == str(path)
    assert error.next == "copy the bundle again, all of its files, or take it from where it was made"
    path.write_bytes(good)
    Bundle.load(folder)


def test_one_flipped_bit_of_the_weights_is_seen(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert refused(folder).what == "the bundle's model.safetensors was changed: its sha256 is not the manifest's"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda m: m.update(format=2), "the bundle has format 2; this version of Headrace reads up to 1"),
        (lambda m: m.update(format="1"), "manifest.json is damaged: its format is '1'"),
        (lambda m: m.pop("files"), "manifest.json is damaged: it lists no files"),
        (lambda m: m["files"].pop("labels.json"), "manifest.json is damaged: it does not list labels.json"),
        (
            lambda m: m["files"]["labels.json"].pop("sha256"),
            "manifest.json is damaged: no size and sha256 for labels.json",
        ),
        (
            lambda m: m["files"].update({"../x": m["files"]["labels.json"]}),
            "the manifest lists '../x', which is no file of a bundle",
        ),
    ],
)
def test_a_manifest_that_cannot_be_right_is_refused(folder: Path, change: Any, what: str) -> None:
    change_json(folder / "manifest.json", change)
    error = refused(folder)
    assert error.what == what
    if "format 2" in what:
        assert error.next == "pip install --upgrade headrace"


def test_a_manifest_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / "manifest.json").write_text("[" * 100_000)
    assert refused(folder).what.startswith("manifest.json is damaged: manifest.json is not readable JSON")
    (folder / "manifest.json").write_text("[]")
    assert refused(folder).what == "manifest.json is damaged: manifest.json is not a JSON object"


# -- weights that are not the model's, under a manifest that vouches for them (X4) -------------------------------------


def rewrite(folder: Path, change: Any) -> None:
    """Change the tensors, and make a manifest that fits them."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    write_manifest(folder)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            lambda t: t.pop("head.output.bias"),
            "model.safetensors lacks 1 tensor (head.output.bias) of the model in config.json",
        ),
        (
            lambda t: t.update({"head.extra": torch.zeros(2)}),
            "model.safetensors holds unknown 1 tensor (head.extra) of the model in config.json",
        ),
        (
            lambda t: t.update({"head.output.bias": torch.zeros(4)}),
            "model.safetensors: head.output.bias has the shape [4], the model in config.json [3]",
        ),
        (
            lambda t: t.update({"head.output.bias": torch.zeros(3, dtype=torch.float64)}),
            "model.safetensors: head.output.bias has the type F64, not F32",
        ),
        (
            lambda t: t["head.output.weight"].fill_(float("nan")),
            "model.safetensors: head.output.weight holds NaN or infinity",
        ),
        (
            lambda t: t["head.output.bias"][1:2].fill_(float("-inf")),
            "model.safetensors: head.output.bias holds NaN or infinity",
        ),
    ],
)
def test_tensors_that_are_not_the_models_are_refused(folder: Path, change: Any, what: str) -> None:
    rewrite(folder, change)
    error = refused(folder)
    assert error.what == what
    assert error.where == str(folder / "model.safetensors")


def test_large_weights_that_are_finite_are_no_fault(folder: Path) -> None:
    rewrite(folder, lambda t: t["head.output.weight"].fill_(3e38))
    Bundle.load(folder)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "model.safetensors is truncated: its header of 0 bytes does not fit into the file's 0"),
        (
            struct.pack("<Q", 2**62) + b"{}",
            "model.safetensors is truncated: its header of 4,611,686,018,427,387,904 bytes does not fit into the file's 10",
        ),
        (struct.pack("<Q", 3) + b"{,}", "the header of model.safetensors is not readable: "),
        (struct.pack("<Q", 2) + b"[]", "the header of model.safetensors is not readable: "),
    ],
)
def test_a_header_that_cannot_be_right_is_refused(folder: Path, content: bytes, what: str) -> None:
    (folder / "model.safetensors").write_bytes(content)
    write_manifest(folder)
    assert refused(folder).what.startswith(what)


def test_weights_cut_after_the_header_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    write_manifest(folder)
    assert refused(folder).what.startswith("model.safetensors is not a whole safetensors file: ")


def test_three_hundred_thousand_tensors_are_refused(folder: Path) -> None:
    entries = ",".join(
        f'"t{index}":{{"dtype":"F32","shape":[1],"data_offsets":[{4 * index},{4 * index + 4}]}}'
        for index in range(300_000)
    )
    header = f"{{{entries}}}".encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(1_200_000))
    write_manifest(folder)
    assert refused(folder).what.startswith("model.safetensors describes far more tensors than the ")


# -- configs that are not Headrace's (X2, X3) --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda a: a.update(auto_map={"AutoModel": "evil.Evil"}), "auto_map"),
        (lambda a: a.update(_attn_implementation="kernels-community/flash"), "_attn_implementation"),
        (lambda a: a.update(_attn_implementation_internal="x/y"), "_attn_implementation_internal"),
        (lambda a: a.update(trust_remote_code=True), "trust_remote_code"),
        (lambda a: a.update(quantization_config={"quant_method": "bitsandbytes_4bit"}), "quantization_config"),
        (lambda a: a.update(surprise=1), "surprise"),
        (lambda a: a.update(hidden_size=10**9), "hidden_size"),
        (lambda a: a.update(num_hidden_layers=10**6), "num_hidden_layers"),
        (lambda a: a.update(vocab_size=-1), ""),
        (lambda a: a.update(model_type="evil"), "'evil'"),
        (lambda a: a.pop("model_type"), "None"),
    ],
)
def test_a_config_with_more_than_an_architecture_is_refused(
    folder: Path, change: Any, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = folder.parent / "executed"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    change_json(folder / "config.json", lambda config: change(config["backbone"]["architecture"]))
    write_manifest(folder)
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    error = refused(folder)
    assert named in error.what
    assert error.where is not None
    assert "config.json" in error.where
    assert not marker.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(auto_map={"AutoModel": "evil.Evil"}),
        lambda c: c.pop("head"),
        lambda c: c.update(head={"name": "evil"}),
        lambda c: c.update(head=[]),
        lambda c: c.update(labels=7),
        lambda c: c.update(backbone="evil"),
        lambda c: c.update(backbone={}),
        lambda c: c["backbone"].update(backbone="os"),
        lambda c: c["backbone"].update(backbone="_weights"),
        lambda c: c["backbone"].update(architecture=[]),
    ],
)
def test_a_classifiers_config_that_was_changed_is_refused(folder: Path, change: Any) -> None:
    change_json(folder / "config.json", change)
    write_manifest(folder)
    assert "config.json" in str(refused(folder))


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        (
            "bundle.json",
            lambda b: b.update(kind="language_model"),
            "the bundle is a 'language_model', not a 'classifier'",
        ),
        ("bundle.json", lambda b: b.pop("task"), "the bundle's bundle.json is damaged: it lacks 'task'"),
        (
            "bundle.json",
            lambda b: b.update(task="evil"),
            "the bundle's task cannot be had: there is no task named 'evil'",
        ),
        ("bundle.json", lambda b: b.pop("tokenizer"), "the bundle's bundle.json is damaged: it lacks 'tokenizer'"),
        (
            "bundle.json",
            lambda b: b["text"].update(max_length=-1),
            "the bundle's bundle.json is damaged: max_length is -1",
        ),
        ("bundle.json", lambda b: b["tokenizer"].pop("pad_id"), "the tokenizer's setting 'pad_id' is missing"),
        (
            "labels.json",
            lambda labels: labels["labels"].reverse(),
            "the bundle's labels.json is damaged: its labels are not those of config.json",
        ),
        ("tokenizer.json", lambda t: t.pop("model"), "the tokenizer cannot be read: "),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(folder: Path, name: str, change: Any, what: str) -> None:
    change_json(folder / name, change)
    write_manifest(folder)
    assert refused(folder).what.startswith(what)


# -- decisions ---------------------------------------------------------------------------------------------------------

COOL = Calibration("temperature", "single_label", {"temperature": 3.7})
PLATT = Calibration("platt", "multi_label", {"slopes": [0.3, 1.7], "intercepts": [-0.4, 0.1]})
STEPS = Calibration("isotonic", "multi_label", {"knots": [[[-1.0, 0.1, 2.0], [-3.0, 0.2, 0.3]], [[0.0], [0.5]]]})


def decided(folder: Path, **content: Any) -> Bundle:
    """A bundle of two labels that may stand together, with a decision."""
    decision = Decision(("toxic", "insult"), **{"calibration": PLATT, "thresholds": (0.45, 0.3), **content})
    return made(folder, labels=("toxic", "insult"), task="multi_label", decision=decision.as_dict())


def test_a_calibrated_bundle_comes_back_to_the_bit_and_is_not_the_plain_one(tmp_path: Path, original: Bundle) -> None:
    decision = Decision(original.labels, COOL)
    before = made(tmp_path, decision=decision.as_dict())
    after = Bundle.load(tmp_path / "bundle")
    assert after.decision == before.decision == decision
    np.testing.assert_array_equal(after.scores(SENTENCES), before.scores(SENTENCES))
    plain = original.scores(SENTENCES)
    cooled = after.scores(SENTENCES)
    np.testing.assert_array_equal(cooled.argmax(axis=1), plain.argmax(axis=1))
    assert (cooled.max(axis=1) < plain.max(axis=1)).all()
    np.testing.assert_allclose(cooled.sum(axis=1), 1.0, atol=1e-6)
    after.save(tmp_path / "again")
    assert Bundle.load(tmp_path / "again").decision == decision


@pytest.mark.parametrize("calibration", [PLATT, STEPS])
def test_thresholds_and_calibration_of_several_labels_hold_after_loading(
    tmp_path: Path, calibration: Calibration
) -> None:
    before = decided(tmp_path, calibration=calibration)
    after = Bundle.load(tmp_path / "bundle")
    scores = after.scores(SENTENCES)
    np.testing.assert_array_equal(scores, before.scores(SENTENCES))
    assert after.threshold == {"toxic": 0.45, "insult": 0.3}
    plain = made(tmp_path / "plain", labels=("toxic", "insult"), task="multi_label").scores(SENTENCES)
    assert np.abs(plain - scores).max() > 0.05
    wanted = [tuple(np.flatnonzero(row >= (0.45, 0.3)).tolist()) for row in scores.astype(np.float64)]
    assert [one.indices for one in after.predict(SENTENCES)] == wanted


def test_a_score_at_its_threshold_gives_the_label(tmp_path: Path) -> None:
    plain = made(tmp_path / "plain", labels=("toxic", "insult"), task="multi_label")
    score = float(plain.scores([SENTENCES[0]])[0, 0])
    for limit, given in ((score, True), (float(np.nextafter(score, 1)), False)):
        decision = Decision(("toxic", "insult"), Calibration("none", "multi_label"), thresholds=(limit, 1.0))
        folder = tmp_path / str(given)
        made(folder, labels=("toxic", "insult"), task="multi_label", decision=decision.as_dict())
        assert ("toxic" in Bundle.load(folder / "bundle").predict([SENTENCES[0]])[0].labels) is given


def test_who_is_not_sure_gives_no_answer_unless_a_threshold_is_given(tmp_path: Path, original: Bundle) -> None:
    confidence = np.sort(original.scores(SENTENCES).max(axis=1).astype(np.float64))
    below = float(confidence[len(confidence) // 2])
    decision = Decision(original.labels, Calibration(), abstain_below=below, error_rate=0.1, confidence=0.9)
    made(tmp_path, decision=decision.as_dict())
    bundle = Bundle.load(tmp_path / "bundle")
    found = bundle.predict(SENTENCES)
    unsure = original.scores(SENTENCES).max(axis=1) < below
    assert 0 < unsure.sum() < len(SENTENCES)
    assert [one.reason for one in found] == ["abstain" if one else None for one in unsure]
    assert [one.label is None for one in found] == unsure.tolist()
    assert [one.index is None for one in found] == unsure.tolist()
    assert all(len(one.scores) == 3 for one in found)
    shown = found[int(unsure.argmax())].as_dict()
    assert (shown["label"], shown["index"], shown["reason"]) == (None, None, "abstain")
    assert "reason" not in found[int(unsure.argmin())].as_dict()


def test_a_given_threshold_goes_before_the_bundles_and_always_answers(tmp_path: Path) -> None:
    decided(tmp_path, abstain_below=1.0, error_rate=0.1, confidence=0.9)
    bundle = Bundle.load(tmp_path / "bundle")
    unsure = bundle.predict(SENTENCES)
    assert {one.reason for one in unsure} == {"abstain"}
    assert {one.labels for one in unsure} == {()}
    assert unsure[0].as_dict()["labels"] is None
    assert unsure[0].as_dict()["indices"] is None
    for threshold, labels in ((0.0, ("toxic", "insult")), ({"toxic": 1.0, "insult": 0.0}, ("insult",))):
        found = bundle.predict(SENTENCES, threshold=threshold)
        assert {one.reason for one in found} == {None}
        assert {one.labels for one in found} == {labels}


def test_two_labels_with_a_threshold_answer_though_the_bundle_may_not(tmp_path: Path) -> None:
    decision = Decision(("bad", "good"), Calibration(), abstain_below=1.0, error_rate=0.1, confidence=0.9)
    made(tmp_path, labels=("bad", "good"), decision=decision.as_dict())
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.predict(SENTENCES[0]).reason == "abstain"
    assert bundle.predict(SENTENCES[0], threshold={"good": 0.0}).label == "good"
    assert bundle.predict(SENTENCES[0], threshold={"bad": 0.0}).label == "bad"


def test_a_number_in_an_older_bundle_of_two_labels_is_that_of_the_second(tmp_path: Path) -> None:
    made(tmp_path, labels=("bad", "good"), threshold=0.0)
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.threshold == {"good": 0.0}
    assert bundle.predict(SENTENCES[0]).label == "good"


def test_an_older_bundle_without_a_decision_still_loads(folder: Path, original: Bundle) -> None:
    change_json(folder / "bundle.json", lambda b: b.pop("decision"))
    write_manifest(folder)
    bundle = Bundle.load(folder)
    assert bundle.decision == Decision.plain(original.labels, task="single_label")
    np.testing.assert_array_equal(bundle.scores(SENTENCES), original.scores(SENTENCES))
    assert {one.reason for one in bundle.predict(SENTENCES)} == {None}


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["calibration"]["parameters"]["slopes"].__setitem__(0, float("nan")),
        lambda d: d["calibration"]["parameters"]["slopes"].__setitem__(0, float("inf")),
        lambda d: d["calibration"]["parameters"]["slopes"].__setitem__(0, 10**400),
        lambda d: d["calibration"]["parameters"]["slopes"].__setitem__(0, -1.0),
        lambda d: d["calibration"]["parameters"]["slopes"].__setitem__(0, "1"),
        lambda d: d["calibration"]["parameters"]["slopes"].append(1.0),
        lambda d: d["calibration"]["parameters"].pop("intercepts"),
        lambda d: d["calibration"].pop("method"),
        lambda d: d["calibration"].update(method="os.system"),
        lambda d: d["calibration"].update(method=["platt"]),
        lambda d: d["calibration"].update(task="single_label", method="temperature", parameters={"temperature": 2.0}),
        lambda d: d.update(calibration=None),
        lambda d: d.pop("thresholds"),
        lambda d: d.update(thresholds=[0.5, 0.5]),
        lambda d: d["thresholds"].update(toxik=d["thresholds"].pop("toxic")),
        lambda d: d["thresholds"].update(more=0.5),
        lambda d: d["thresholds"].update(toxic=1.5),
        lambda d: d["thresholds"].update(toxic=10**400),
        lambda d: d["thresholds"].update(toxic=None),
        lambda d: d["abstain"].update(below=float("nan")),
        lambda d: d["abstain"].update(below=None),
        lambda d: d["abstain"].pop("confidence"),
        lambda d: d.update(abstain=0.5),
        lambda d: d.update(surprise=1),
    ],
)
def test_a_damaged_decision_is_refused(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, change: Any) -> None:
    source = tmp_path_factory.getbasetemp() / "decided"
    if not source.is_dir():
        decided(source, abstain_below=0.6, error_rate=0.1, confidence=0.9)
    folder = Path(shutil.copytree(source / "bundle", tmp_path / "bundle"))
    Bundle.load(folder)
    change_json(folder / "bundle.json", lambda b: change(b["decision"]))
    write_manifest(folder)
    error = refused(folder)
    assert error.what.startswith("the bundle's bundle.json is damaged: its decision: ")
    assert error.where == str(folder / "bundle.json")
    assert error.next == "take the original bundle"


@pytest.mark.parametrize("value", [[], "none", 1.0, {}])
def test_a_decision_that_is_none_is_refused(folder: Path, value: Any) -> None:
    change_json(folder / "bundle.json", lambda b: b.update(decision=value))
    write_manifest(folder)
    assert "its decision: a decision is a mapping" in refused(folder).what


# -- pickles (X1) ------------------------------------------------------------------------------------------------------


class _Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("forced", [False, True])
def test_a_pickle_is_never_opened_and_never_listed(folder: Path, monkeypatch: pytest.MonkeyPatch, forced: bool) -> None:
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker = folder.parent / "executed"
    payload = pickle.dumps(_Payload(marker))
    names = ["pytorch_model.bin", "optimizer.pt", "training_args.bin", "tokenizer.pkl", "head.npy", "model.ckpt"]
    for name in names:
        (folder / name).write_bytes(payload)
    Bundle.load(folder).predict("A good film.")  # beside the bundle's files: left alone
    good = json.loads((folder / "manifest.json").read_text())
    for name in names:
        listed = {**good["files"], name: good["files"]["labels.json"]}
        (folder / "manifest.json").write_text(json.dumps({**good, "files": listed}))
        assert refused(folder).what == f"the manifest lists {name!r}, which is no file of a bundle"
    for name in ("model.safetensors", "tokenizer.json", "config.json", "bundle.json", "labels.json"):
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(payload)
        write_manifest(folder)
        assert name in str(refused(folder))
        (folder / name).write_bytes(kept)
    assert not marker.exists()
    pickle.loads(payload)
    assert marker.exists()  # the payload would have worked
