"""Scores in input order whatever the batches, and the answers that are made of them."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from headrace import compiled, matmul
from headrace.backbones._bert import _Projections
from headrace.backbones._written import SelfAttention, Sizes, activated
from headrace.data.examples import LabelSet
from headrace.decide.calibration import Calibration
from headrace.decide.decision import Decision
from headrace.errors import ModelError, RecipeError
from headrace.head import HeadSettings
from headrace.matmul import DEFAULT, ONEDNN
from headrace.model import Classifier, build_classifier, load_classifier
from headrace.predict import (
    Narrowed,
    Prediction,
    answers,
    embed,
    flags_of,
    narrow,
    passes,
    probabilities,
    read_threshold,
    score,
    thresholds,
    token_vectors,
)
from headrace.text.batch import Batch
from headrace.text.store import TokenStore
from headrace.text.subwords import Encoded, Subwords
from tiny import SENTENCES, tiny_folder

TEXTS = [*SENTENCES, "", "film", " ".join(SENTENCES), "☃ ☃"]
SIZES = Sizes(
    n_words=60,
    n_positions=40,
    n_segments=2,
    embedding_width=16,
    width=16,
    between=32,
    n_layers=1,
    n_heads=2,
    activation="gelu",
    eps=1e-12,
    dropout=0.1,
    attention_dropout=0.1,
    std=0.02,
    pad_id=0,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def classifier(folder: Path) -> Classifier:
    torch.manual_seed(3)
    return load_classifier(
        backbone=str(folder), head=HeadSettings(pool="mean"), labels=LabelSet(("a", "b", "c")), multi_label=False
    )


@pytest.fixture(scope="module")
def subwords(folder: Path) -> Subwords:
    return Subwords.load(folder)


@pytest.fixture(scope="module")
def tokens(subwords: Subwords) -> dict[str, Any]:
    return {"pad_id": subwords.pad_id, "uses_token_types": subwords.uses_token_types}


@pytest.fixture(scope="module")
def encoded(subwords: Subwords) -> list[Encoded]:
    return subwords.encode(TEXTS, max_length=96)


def test_logits_come_in_input_order_and_do_not_depend_on_the_batch(
    classifier: Classifier, encoded: list[Encoded], tokens: dict[str, Any]
) -> None:
    alone = np.concatenate([score(classifier, [one], **tokens) for one in encoded])
    assert alone.shape == (len(TEXTS), 3)
    assert alone.dtype == np.float32
    assert np.ptp(alone, axis=0).min() > 1e-3
    for max_tokens in (1, 64, 200, 8192):
        together = score(classifier, encoded, **tokens, max_tokens=max_tokens)
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
    backwards = score(classifier, encoded[::-1], **tokens)
    np.testing.assert_allclose(backwards[::-1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("head", [HeadSettings(pool="mean"), HeadSettings(pool="cls"), HeadSettings(name="native")])
def test_on_a_cpu_texts_are_laid_end_to_end_and_the_numbers_stay(
    head: HeadSettings, folder: Path, encoded: list[Encoded], tokens: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_classifier(backbone=str(folder), head=head, labels=LabelSet(("a", "b")), multi_label=False).eval()
    seen: list[tuple[int, ...]] = []
    model.backbone.encoder.embeddings.register_forward_hook(lambda _, args, out: seen.append(tuple(out.shape[:2])))

    def numbers() -> list[np.ndarray]:
        vectors = token_vectors(model, encoded, **tokens)
        return [score(model, encoded, **tokens), embed(model, encoded, **tokens), np.concatenate(vectors)]

    packed = numbers()
    n_tokens = sum(len(one.ids) for one in encoded)
    assert any(rows == 1 and n_tokens <= width <= 1.03 * n_tokens for rows, width in seen)  # in few sizes
    attention = model.backbone.model.config._attn_implementation
    monkeypatch.setattr(type(model.backbone), "scoring_on_cpu", lambda self, *, first_alone: nullcontext())
    for ours, theirs in zip(packed, numbers(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    assert model.backbone.model.config._attn_implementation == attention == "sdpa"
    assert not model.backbone.packs


def test_a_store_and_encoded_texts_score_alike(
    classifier: Classifier, encoded: list[Encoded], tokens: dict[str, Any]
) -> None:
    np.testing.assert_array_equal(
        score(classifier, TokenStore.of(encoded), **tokens), score(classifier, encoded, **tokens)
    )


def test_dropout_is_off_while_scoring_and_each_part_trains_or_not_as_before(
    classifier: Classifier, encoded: list[Encoded], tokens: dict[str, Any]
) -> None:
    classifier.train()
    classifier.backbone.eval()  # a frozen backbone under a training head
    first = score(classifier, encoded, **tokens)
    assert classifier.training
    assert classifier.head is not None
    assert classifier.head.training
    assert not classifier.backbone.training
    np.testing.assert_array_equal(first, score(classifier, encoded, **tokens))


def test_the_training_flag_comes_back_after_an_error(classifier: Classifier, tokens: dict[str, Any]) -> None:
    classifier.train()
    beyond = Encoded(np.array([10**6], dtype=np.int32), 1, 1, 0)
    with pytest.raises(IndexError):
        score(classifier, [beyond], **tokens)
    assert all(module.training for module in classifier.modules())


def test_no_gradient_is_kept(classifier: Classifier, encoded: list[Encoded], tokens: dict[str, Any]) -> None:
    score(classifier, encoded, **tokens)
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_no_texts_give_no_rows(classifier: Classifier, tokens: dict[str, Any]) -> None:
    assert score(classifier, [], **tokens).shape == (0, 3)
    assert embed(classifier, [], **tokens).shape == (0, 32)
    assert token_vectors(classifier, [], **tokens) == []


def test_progress_counts_up_to_all_texts(
    classifier: Classifier, encoded: list[Encoded], tokens: dict[str, Any]
) -> None:
    told: list[tuple[int, int]] = []
    score(classifier, encoded, **tokens, max_tokens=64, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (len(TEXTS), len(TEXTS))
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert len(told) > 2


def test_bf16_is_near_fp32_and_gives_float32(
    classifier: Classifier, encoded: list[Encoded], tokens: dict[str, Any]
) -> None:
    exact = score(classifier, encoded, **tokens)
    rough = score(classifier, encoded, **tokens, precision="bf16")
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() < 0.1


def test_matrices_are_multiplied_by_the_faster_library_or_the_one_that_is_asked_for(
    classifier: Classifier, encoded: list[Encoded], tokens: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "fastest_route", lambda: ONEDNN)
    settings: list[str] = []
    forward = classifier.forward

    def seen(batch: Batch) -> torch.Tensor:
        settings.append(torch.backends.mkldnn.matmul.fp32_precision)
        return forward(batch)

    monkeypatch.setattr(classifier, "forward", seen)
    before = torch.backends.mkldnn.matmul.fp32_precision
    found = score(classifier, encoded, **tokens)
    assert set(settings) == {"bf16"} != {before}  # how torch names the way to oneDNN
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    plain = score(classifier, encoded, **tokens, route=DEFAULT)
    assert settings[-1] == before
    np.testing.assert_allclose(found, plain, atol=0.05)  # with AMX it would be bfloat16; `fastest_route` looks for that


def test_an_unknown_precision_or_pooling_is_refused(
    classifier: Classifier, encoded: list[Encoded], tokens: dict[str, Any]
) -> None:
    with pytest.raises(RecipeError) as caught:
        score(classifier, encoded, **tokens, precision="bf61")
    assert str(caught.value) == (
        "there is no precision 'bf61'\n  where: precision\n  next:  did you mean 'bf16'? available: bf16, fp32"
    )
    with pytest.raises(RecipeError, match="there is no pooling 'maen'") as misspelt:
        embed(classifier, encoded, **tokens, pool="maen")
    assert misspelt.value.next.startswith("did you mean 'mean'?")
    with pytest.raises(ModelError, match="without its pooler"):
        embed(classifier, encoded, **tokens, pool="pooler")


@pytest.mark.parametrize("pool", ["mean", "cls", "max"])
def test_embeddings_pool_the_token_vectors(
    classifier: Classifier, encoded: list[Encoded], tokens: dict[str, Any], pool: str
) -> None:
    vectors = token_vectors(classifier, encoded, **tokens)
    assert [len(of_text) for of_text in vectors] == [len(one.ids) for one in encoded]
    by_hand = {"mean": lambda v: v.mean(axis=0), "cls": lambda v: v[0], "max": lambda v: v.max(axis=0)}[pool]
    expected = np.stack([by_hand(of_text) for of_text in vectors])
    np.testing.assert_allclose(embed(classifier, encoded, **tokens, pool=pool), expected, rtol=0, atol=1e-5)


def test_single_label_answers_are_the_highest_scores() -> None:
    found = answers(np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]], np.float32), ("a", "b", "c"), task="single_label")
    assert [(one.label, one.index, one.labels, one.indices) for one in found] == [("b", 1, (), ()), ("a", 0, (), ())]
    assert found[0].scores == pytest.approx({"a": 0.2, "b": 0.5, "c": 0.3})
    assert found[1].as_dict() == {"label": "a", "index": 0, "scores": found[1].scores, "flags": []}


def test_multi_label_answers_are_tuples_and_clean_text_has_none() -> None:
    scores = np.array([[0.9, 0.5, 0.1], [0.1, 0.2, 0.3]], np.float32)
    found = answers(scores, ("a", "b", "c"), task="multi_label", flags=[(), ("empty",)])
    assert [(one.label, one.labels, one.indices) for one in found] == [(None, ("a", "b"), (0, 1)), (None, (), ())]
    assert found[1].as_dict() == {"labels": [], "indices": [], "scores": found[1].scores, "flags": ["empty"]}
    lower = answers(scores, ("a", "b", "c"), task="multi_label", threshold={"c": 0.25})
    assert [one.labels for one in lower] == [("a", "b"), ("c",)]


def test_unsure_rows_have_scores_and_a_reason_but_no_answer() -> None:
    scores = np.array([[0.9, 0.1], [0.5, 0.5]], np.float32)
    unsure = np.array([False, True])
    single = answers(scores, ("a", "b"), task="single_label", unsure=unsure, flags=[(), ("cut",)])
    assert [(one.label, one.index, one.reason) for one in single] == [("a", 0, None), (None, None, "abstain")]
    assert single[1].as_dict() == {
        "label": None,
        "index": None,
        "reason": "abstain",
        "scores": {"a": 0.5, "b": 0.5},
        "flags": ["cut"],
    }
    several = answers(scores, ("a", "b"), task="multi_label", unsure=unsure)
    assert [(one.labels, one.indices, one.reason) for one in several] == [(("a",), (0,), None), ((), (), "abstain")]
    assert [one.as_dict()["labels"] for one in several] == [["a"], None]  # unlike a clean text, which has []


def test_scores_are_the_tasks_own_unless_a_calibration_is_kept() -> None:
    logits = np.array([[2.0, -1.0], [0.3, 0.1]], np.float32)
    plain = Decision.plain(("a", "b"), task="single_label")
    np.testing.assert_array_equal(
        probabilities(logits, "single_label", plain), torch.softmax(torch.from_numpy(logits), dim=-1).numpy()
    )
    cooled = Decision(("a", "b"), Calibration("temperature", "single_label", {"temperature": 2.0}))
    np.testing.assert_allclose(
        probabilities(logits, "single_label", cooled),
        torch.softmax(torch.from_numpy(logits / 2), dim=-1).numpy(),
        atol=1e-6,
    )
    assert probabilities(logits[:0], "single_label", cooled).shape == (0, 2)


@pytest.mark.parametrize(
    ("threshold", "label"),
    [
        (None, "no"),
        ({"yes": 0.25}, "yes"),
        ({"yes": 0.3125}, "yes"),
        ({"yes": 0.32}, "no"),
        ({"no": 0.6875}, "no"),
        ({"no": 0.69}, "yes"),
        ({"no": float(np.float32(0.6875))}, "no"),
    ],
)
def test_a_threshold_of_two_labels_is_that_of_the_one_it_names(threshold: Any, label: str) -> None:
    scores = np.array([[0.6875, 0.3125]], np.float32)
    assert answers(scores, ("no", "yes"), task="single_label", threshold=threshold)[0].label == label


def test_a_score_given_as_threshold_of_the_first_of_two_labels_includes_itself() -> None:
    logits = np.random.default_rng(0).normal(0, 4, (2000, 2)).astype(np.float32)
    scores = probabilities(logits, "single_label", Decision.plain(("no", "yes"), task="single_label"))
    for row in scores:
        (found,) = answers(row[None], ("no", "yes"), task="single_label", threshold={"no": float(row[0])})
        (above,) = answers(
            row[None], ("no", "yes"), task="single_label", threshold={"no": min(1.0, float(np.nextafter(row[0], 2)))}
        )
        assert found.label == "no"
        assert above.label == ("no" if row[0] == 1.0 else "yes")


def test_a_threshold_that_names_neither_or_both_of_two_labels_is_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        thresholds(0.3, ("ham", "spam"), multi_label=False)
    assert caught.value.what == "a threshold for one of 'ham' and 'spam' does not say for which"
    assert caught.value.next == "name it, such as spam=0.3"
    with pytest.raises(RecipeError, match="a threshold for each of two labels"):
        thresholds({"ham": 0.3, "spam": 0.3}, ("ham", "spam"), multi_label=False)


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], None), (["0.3"], 0.3), (["spam=0.3", "a=b=1"], {"spam": 0.3, "a=b": 1.0})],
)
def test_thresholds_are_read_from_a_command_line(words: list[str], expected: Any) -> None:
    assert read_threshold(words) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["much"], "'much' is no threshold"),
        (["spam="], "'spam=' is no threshold"),
        (["0.3", "0.4"], "0.3 does not say for which label"),
        (["spam=0.3", "0.4"], "0.4 does not say for which label"),
        (["spam=0.3", "spam=0.4"], "'spam' has two thresholds"),
    ],
)
def test_thresholds_of_a_command_line_that_make_no_sense_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_threshold(words)
    assert caught.value.what == message


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        (1.5, "a threshold of 1.5 is not a number in [0, 1]"),
        ("0.5", "a threshold of '0.5' is not a number in [0, 1]"),
        (True, "a threshold of True is not a number in [0, 1]"),
        (float("nan"), "a threshold of nan is not a number in [0, 1]"),
        ({"toxik": 0.5}, "there is no label 'toxik' to set a threshold for"),
        ({"toxic": 2}, "a threshold of 2 is not a number in [0, 1]"),
    ],
)
def test_a_threshold_that_makes_no_sense_is_refused(threshold: Any, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        thresholds(threshold, ("insult", "toxic"), multi_label=True)
    assert caught.value.what == message
    if "toxik" in message:
        assert caught.value.next == "did you mean 'toxic'? available: insult, toxic"


def test_thresholds_by_name_do_not_suit_a_single_label() -> None:
    with pytest.raises(RecipeError, match="one of 3 labels is the answer"):
        thresholds({"a": 0.5}, ("a", "b", "c"), multi_label=False)


@pytest.mark.parametrize(
    ("text", "counts", "flags"),
    [
        ("fine", (5, 5, 0), ()),
        ("", (2, 2, 0), ("empty",)),
        (" \t\n ", (2, 2, 0), ("empty",)),
        ("☃ ☃", (4, 4, 2), ("unknown",)),
        ("half ☃", (4, 4, 1), ()),
        ("\u200b", (2, 2, 0), ("empty",)),
        ("long", (5, 9, 0), ("cut",)),
        ("\ud800", (3, 3, 1), ("unknown", "surrogate")),
        (("first", " "), (4, 4, 0), ("empty",)),
    ],
)
def test_flags_say_what_to_know_of_a_text(text: Any, counts: tuple[int, int, int], flags: tuple[str, ...]) -> None:
    n_kept, n_full, n_unknown = counts
    assert flags_of(text, n_kept=n_kept, n_full=n_full, n_special=2, n_unknown=n_unknown) == flags


def test_a_prediction_cannot_be_changed() -> None:
    prediction = Prediction({"a": 1.0}, label="a", index=0)
    with pytest.raises(AttributeError):
        prediction.label = "b"  # type: ignore[misc]


def test_the_twin_in_16_bits_of_transformers_own_model_gives_the_scores_of_autocast_to_the_bit(
    classifier: Classifier, encoded: list[Encoded], tokens: dict[str, Any]
) -> None:
    twin = Narrowed().of(classifier)
    assert np.array_equal(
        score(twin, encoded, **tokens, precision="bf16"), score(classifier, encoded, **tokens, precision="bf16")
    )


def test_the_twin_shares_all_but_the_linear_layers(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.matmul.lays_out", lambda: False)
    twin = Narrowed().of(classifier)
    wide, narrow = dict(classifier.named_parameters()), dict(twin.named_parameters())
    assert {weight.dtype for weight in wide.values()} == {torch.float32}
    assert {name for name in wide if narrow[name] is not wide[name]} == {
        name for name, weight in narrow.items() if weight.dtype == torch.bfloat16
    }
    assert narrow["head.output.weight"].dtype == torch.bfloat16
    assert sum(weight.dtype == torch.float32 for weight in narrow.values()) >= 5  # embeddings and norms


@pytest.mark.parametrize("lays_out", [True, False])
def test_the_twin_gives_the_same_bits_whether_its_weights_are_laid_out_or_not(
    classifier: Classifier,
    encoded: list[Encoded],
    tokens: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    lays_out: bool,
) -> None:
    if lays_out and not matmul.lays_out():
        pytest.skip("torch has no such products here")
    monkeypatch.setattr("headrace.matmul.lays_out", lambda: lays_out)
    twin = Narrowed().of(classifier)
    kinds = {type(module) for module in twin.modules()}
    assert (narrow.LaidOut in kinds, nn.Linear in kinds) == (lays_out, not lays_out)
    assert np.array_equal(
        score(twin, encoded, **tokens, precision="bf16"), score(classifier, encoded, **tokens, precision="bf16")
    )


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_the_twin_of_an_encoder_that_is_written_out_joins_products_and_activations(
    family: str, tmp_path: Path, encoded: list[Encoded], tokens: dict[str, Any]
) -> None:
    if not matmul.lays_out():
        pytest.skip("torch has no such products here")
    loaded = load_classifier(
        backbone=str(tiny_folder(tmp_path, family)),
        head=HeadSettings(pool="mean"),
        labels=LabelSet(("a", "b", "c")),
        multi_label=False,
    )
    classifier = build_classifier(loaded.config())
    classifier.load_state_dict(loaded.state_dict())
    twin = Narrowed().of(classifier)
    parts = [module for module in twin.modules() if isinstance(module, SelfAttention)]
    assert len(parts) == 2
    assert all(type(part.joined) is narrow.LaidOut for part in parts)
    assert not any(hasattr(part, name) for part in parts for name in part.PROJECTIONS)
    assert all(part.joined is None for part in classifier.modules() if isinstance(part, SelfAttention))
    used: list[object] = []
    own = narrow.LaidOut.activated

    def activated(layer: narrow.LaidOut, given: torch.Tensor, activation: Any) -> torch.Tensor | None:
        used.append(activation)
        return own(layer, given, activation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(narrow.LaidOut, "activated", activated)
        found = score(twin, encoded, **tokens, precision="bf16")
    assert set(used) == {functional.gelu}
    exact = score(classifier, encoded, **tokens)
    plain = score(classifier, encoded, **tokens, precision="bf16")
    assert float(np.abs(found - exact).max()) < max(2e-2, 2 * float(np.abs(plain - exact).max()))
    for one, expected in zip(encoded[:3], found, strict=False):
        assert np.allclose(score(twin, [one], **tokens, precision="bf16")[0], expected, atol=2e-2)


@pytest.mark.parametrize("activation", [functional.gelu, functional.relu, torch.tanh])
def test_an_activation_is_computed_with_the_product_where_that_is_known(activation: Any) -> None:
    if not matmul.lays_out():
        pytest.skip("torch has no such products here")
    linear = nn.Linear(40, 24).bfloat16()
    given = torch.randn(2, 5, 40)
    with torch.inference_mode():
        found = narrow.LaidOut(linear).activated(given, activation)
        assert (found is None) == (activation is torch.tanh)
        exact = activation(functional.linear(given.bfloat16().float(), linear.weight.float(), linear.bias.float()))
        assert torch.allclose(activated(narrow.LaidOut(linear), activation, given).float(), exact, atol=1e-2, rtol=1e-2)
        assert torch.allclose(activated(linear.float(), activation, given).float(), exact, atol=2e-2, rtol=2e-2)


def test_several_threads_that_ask_one_classifier_get_what_one_gets(
    classifier: Classifier, encoded: list[Encoded], tokens: dict[str, Any]
) -> None:
    asked = [encoded[number % len(encoded)] for number in range(60)]
    expected = [score(classifier, [one], **tokens, precision="bf16") for one in asked]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda one: score(classifier, [one], **tokens, precision="bf16"), asked))
    finally:
        sys.setswitchinterval(before)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_layers_that_have_no_bias_alike_are_not_joined() -> None:
    attention = _Projections(SIZES, SimpleNamespace(_attn_implementation="sdpa")).bfloat16()
    attention.key.bias = None
    narrow.lay_out(attention)
    assert attention.joined is None
    assert {type(attention.get_submodule(name)) for name in attention.PROJECTIONS} == {narrow.LaidOut}


def test_where_torch_lacks_the_products_weights_are_not_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(weight: torch.Tensor) -> torch.Tensor:
        raise AttributeError("no such operator")

    monkeypatch.setattr(matmul, "lay_out", missing)
    matmul.lays_out.cache_clear()
    assert matmul.lays_out() is False
    matmul.lays_out.cache_clear()


def test_the_twin_is_kept_until_a_weight_changes(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.matmul.lays_out", lambda: False)
    narrowed = Narrowed()
    twin = narrowed.of(classifier)
    assert narrowed.of(classifier) is twin
    with torch.no_grad():
        classifier.head.output.weight.mul_(2)
    later = narrowed.of(classifier)
    assert later is not twin
    assert torch.equal(later.head.output.weight, classifier.head.output.weight.to(torch.bfloat16))
    with torch.inference_mode():
        assert narrowed.of(classifier) is later


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_single_text_meets_few_numbers_of_tokens(
    classifier: Classifier,
    encoded: list[Encoded],
    tokens: dict[str, Any],
    precision: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    score(classifier, encoded[:1], **tokens, precision=precision)  # it finds out how to compute
    widths: list[int] = []
    first = next(module for module in classifier.modules() if isinstance(module, nn.Linear))
    first.register_forward_pre_hook(lambda module, given: widths.append(given[0].shape[-2]))
    filled = np.concatenate([score(classifier, [one], **tokens, precision=precision) for one in encoded])
    assert {width % passes.EVEN_TOKENS for width in widths} == {0}
    monkeypatch.setattr(passes, "EVEN_TOKENS", 1)
    plain = np.concatenate([score(classifier, [one], **tokens, precision=precision) for one in encoded])
    np.testing.assert_allclose(filled, plain, rtol=0, atol=1e-5 if precision == "fp32" else 0.03)
    # a model that would not take so many gets the text as it is
    monkeypatch.setattr(passes, "EVEN_TOKENS", 1 << 20)
    monkeypatch.setattr(classifier.backbone, "max_tokens", 64)
    widths.clear()
    score(classifier, encoded[:1], **tokens)
    assert widths == [len(encoded[0].ids)]


def test_answers_in_16_bits_go_through_compiled_loops_and_those_in_float32_do_not(
    classifier: Classifier, encoded: list[Encoded], tokens: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled.attends(torch.bfloat16, 16):
        pytest.skip("no compiled loops here: no numba, torch has no OpenMP, or the processor no products of bfloat16")
    used: list[torch.dtype] = []
    own = compiled.attention

    def counted(query: torch.Tensor, *args: Any, **options: Any) -> compiled.Attended:
        used.append(query.dtype)
        return own(query, *args, **options)

    def asked() -> bool:
        raise AssertionError("to ask may compile them")

    monkeypatch.setattr(compiled, "attention", counted)
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "are_there", asked)
        score(classifier, encoded, **tokens)
    assert used == []
    found = score(classifier, encoded, **tokens, precision="bf16")
    assert set(used) == {torch.bfloat16}
    used.clear()
    alone = score(classifier, encoded[:1], **tokens, precision="bf16")
    assert set(used) == {torch.bfloat16}
    assert np.allclose(alone, found[:1], atol=2e-2)
    monkeypatch.setattr(compiled, "are_there", lambda: False)
    assert np.allclose(score(classifier, encoded, **tokens, precision="bf16"), found, atol=2e-2)
