"""The AWD-LSTM as a backbone: chunks, padding, truncated gradients, directions, groups, and its way into a bundle."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headrace.backbones._awd_layers import CLASSIFIER, Sizes
from headrace.backbones.awd_lstm import AwdLstm, build, load, resolve
from headrace.bundle import Bundle, TextSettings, save_bundle
from headrace.data.examples import LabelSet
from headrace.errors import BundleError, ModelError, RecipeError
from headrace.explain import explain
from headrace.head import HeadSettings
from headrace.model import Classifier, build_classifier, load_classifier
from headrace.text.batch import Batch
from headrace.text.subwords import Subwords
from tiny import tiny_folder
from tiny_models import make_batch

WORDS = [f"word{number}" for number in range(60)]
SMALL: dict[str, Any] = {"embedding_size": 6, "hidden_size": 10, "n_layers": 3}
LABELS = LabelSet(("no", "yes"))
CLOSE = {"rtol": 0, "atol": 1e-6}


def spread(model: nn.Module, *, seed: int = 0) -> None:
    """Draw weights so large that states differ from token to token and a mistake shows."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)


def model(**settings: Any) -> AwdLstm:
    found = load(words=WORDS, **{**SMALL, **settings})
    spread(found)
    return found


def classifier(**settings: Any) -> Classifier:
    backbone = {"name": "awd_lstm", "words": WORDS, **SMALL, **settings}
    return load_classifier(backbone=backbone, head=HeadSettings("ulmfit"), labels=LABELS, multi_label=False)


def one(ids: Tensor) -> Batch:
    return Batch(ids[None], torch.ones_like(ids[None]), None, torch.arange(1))


def test_in_evaluation_it_is_a_stack_of_torchs_lstms_whatever_the_chunks() -> None:
    ours = model().eval()
    hidden = ours.embedding(make_batch([200]).input_ids)
    for layer, (below, above) in zip(ours.layers, [(6, 10), (10, 10), (10, 6)], strict=True):
        theirs = nn.LSTM(below, above, batch_first=True)
        theirs.load_state_dict({f"{name}_l0": tensor for name, tensor in layer.state_dict().items()})
        hidden, _ = theirs(hidden)
    with torch.no_grad():
        torch.testing.assert_close(ours(make_batch([200])), hidden, rtol=0, atol=1e-5)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_padding_and_neighbours_never_move_a_state(direction: str) -> None:
    ours = model(direction=direction).eval()
    lengths = [5, 144, 73, 0, 1500, 72, 300, 71, 1]
    with torch.no_grad():
        found = ours(make_batch(lengths, pad_to=1505))
        assert found.shape == (9, 1505, 6)
        for row, length in enumerate(lengths):
            ids = make_batch(lengths).input_ids[row, :length]
            if length:
                torch.testing.assert_close(found[row, :length], ours(one(ids))[0], **CLOSE)
        assert ours(make_batch([0, 0], pad_to=3)).shape == (2, 3, 6)
        assert ours(make_batch([0], pad_to=0)).shape == (1, 0, 6)


def test_evaluation_is_deterministic_and_training_follows_the_seed() -> None:
    ours, batch = model().eval(), make_batch([90, 30])
    assert torch.equal(ours(batch), ours(batch))
    ours.train()
    seeded = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        seeded.append(ours(batch))
    assert torch.equal(seeded[0], seeded[1])
    assert not torch.equal(seeded[0], seeded[2])


def test_backward_reads_the_real_tokens_from_the_last_and_puts_states_at_their_tokens() -> None:
    forward, backward = model().eval(), model(direction="backward").eval()
    backward.load_state_dict(forward.state_dict())
    batch = make_batch([80, 13])
    with torch.no_grad():
        found = backward(batch)
        for row, length in enumerate([80, 13]):
            expected = forward(one(batch.input_ids[row, :length].flip(0)))[0].flip(0)
            torch.testing.assert_close(found[row, :length], expected, **CLOSE)
    assert backward.last_places(batch).tolist() == [0, 0]
    assert forward.last_places(batch).tolist() == [79, 12]


@pytest.mark.parametrize(("length", "first"), [(1440, 0), (1441, 72), (1512, 72), (1513, 144), (2000, 576)])
def test_a_long_text_is_pooled_over_whole_chunks_within_its_last_1440_tokens(length: int, first: int) -> None:
    batch = make_batch([length, 30], pad_to=2001)
    forward = model().pool_mask(batch)
    assert forward[0].nonzero().flatten().tolist() == list(range(first, length))
    assert forward[1].sum() == 30
    backward = model(direction="backward").pool_mask(batch)
    assert backward[0].nonzero().flatten().tolist() == list(range(length - first))


def gradient_places(ours: AwdLstm, batch: Batch, of_tokens: slice, *, row: int = 0) -> list[int]:
    """Return at which tokens of a text a gradient of some of its states arrives."""
    kept: list[Tensor] = []
    handle = ours.embedding.register_forward_hook(lambda _m, _a, output: (output.retain_grad(), kept.append(output))[0])
    ours(batch)[row, of_tokens].square().sum().backward()
    handle.remove()
    assert kept[0].grad is not None
    return kept[0].grad[row].abs().sum(dim=1).nonzero().flatten().tolist()


def test_in_training_a_gradient_stays_in_its_chunk_and_in_the_last_1440_tokens() -> None:
    ours = model(drop_mult=0.0).train()
    batch = make_batch([1600, 300])
    assert gradient_places(ours, batch, slice(0, 1600)) == list(range(216, 1600))  # 1600 - 216 is 19 chunks and a rest
    assert gradient_places(ours, batch, slice(0, 300), row=1) == list(range(300))
    assert gradient_places(ours, batch, slice(299, 300)) == list(range(288, 300))


def test_backwards_the_gradient_reaches_what_is_read_last() -> None:
    ours = model(drop_mult=0.0, direction="backward").train()
    assert gradient_places(ours, make_batch([1600]), slice(0, 1600)) == list(range(1384))
    assert gradient_places(ours, make_batch([100]), slice(0, 1)) == list(range(28))  # 72 were read in the first chunk


def test_in_evaluation_a_gradient_goes_through_the_whole_text() -> None:
    assert gradient_places(model().eval(), make_batch([160]), slice(159, 160)) == list(range(160))


def test_a_text_that_keeps_no_gradient_anywhere_costs_no_graph() -> None:
    ours = model(drop_mult=0.0).train()
    states: list[bool] = []
    ours.layers[0].register_forward_hook(lambda _m, _a, output: states.append(output[0].requires_grad))
    ours(make_batch([1600, 1590]))
    assert states == [False] * 3 + [True] * 20


def test_each_parameter_stands_in_one_group_from_bottom_to_top() -> None:
    ours = model()
    assert [name for name, _ in ours.groups()] == ["embeddings", "layer 0", "layer 1", "layer 2"]
    grouped = [id(parameter) for _, parameters in ours.groups() for parameter in parameters]
    assert len(grouped) == len(set(grouped)) == 13
    assert set(grouped) == {id(parameter) for parameter in ours.parameters()}
    assert [name for name, _ in classifier().groups()][-1] == "head"
    assert (ours.max_tokens, ours.packs, ours.frozen_in_eval, ours.width) == (None, False, False, 6)


def test_the_default_sizes_are_those_of_the_published_weights() -> None:
    with torch.device("meta"):
        shapes = {name: list(tensor.shape) for name, tensor in load(words=WORDS).state_dict().items()}
    assert shapes["embedding.weight"] == [60, 400]
    assert [shapes[f"layers.{number}.weight_hh"] for number in range(3)] == [[4608, 1152], [4608, 1152], [1600, 400]]
    assert [shapes[f"layers.{number}.weight_ih"] for number in range(3)] == [[4608, 400], [4608, 1152], [1600, 1152]]


def test_the_config_builds_the_same_model() -> None:
    ours = model(direction="backward", drop_mult=0.5, n_layers=2).eval()
    config = json.loads(json.dumps(ours.config(), allow_nan=False))
    again = build(config).eval()
    assert again.config() == ours.config()
    assert again.dropouts == CLASSIFIER.times(0.5)
    again.load_state_dict(ours.state_dict(), strict=True)
    batch = make_batch([100, 4])
    assert torch.equal(again(batch), ours(batch))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"n_words": 10**9}, "n_words is 1000000000, not a whole number from 1 to 10,000,000"),
        ({"hidden_size": 0}, "hidden_size is 0,"),
        ({"n_layers": True}, "n_layers is True,"),
        ({"embedding_size": "8"}, "embedding_size is '8',"),
        ({"dropouts": {"embedding": 0.1}}, "is damaged"),
        ({"dropouts": {**asdict(CLASSIFIER), "weight": 1.0}}, "the weight dropout is 1,"),
        ({"dropouts": None}, "is damaged"),
        ({"direction": "both"}, "one model does not read in the direction 'both'"),
        ({"extra": 1}, "lacks or does not know: extra"),
    ],
)
def test_a_changed_config_is_refused(change: dict[str, Any], what: str) -> None:
    with pytest.raises(ModelError) as caught:
        build({**model().config(), **change})
    assert what in caught.value.what
    assert caught.value.next


def test_a_language_models_encoder_becomes_a_classifiers_with_other_dropouts() -> None:
    ours = model(drop_mult=0.1, direction="backward")
    copy = ours.for_classifier(drop_mult=0.5)
    assert copy.dropouts == CLASSIFIER.times(0.5)
    assert copy.direction == "backward"
    assert all(torch.equal(ours.state_dict()[name], tensor) for name, tensor in copy.state_dict().items())
    with torch.no_grad():
        copy.embedding.weight.zero_()
    assert ours.embedding.weight.any()


@pytest.mark.parametrize(
    ("settings", "what", "next_step"),
    [
        ({"hidden": 3}, "the backbone has no setting 'hidden'", "available: direction, drop_mult, embedding_size"),
        ({"revision": "main"}, "the backbone has no setting 'revision'", "available"),
        ({"weights": "pretrained"}, "are not downloaded by Headrace", "wt103-fwd.tgz"),
        ({"words": None}, "needs the words of its texts", "words"),
        ({"direction": "up"}, "one model does not read in the direction 'up'", "available: backward, forward"),
        ({"n_layers": 0}, "n_layers is 0", "change it"),
    ],
)
def test_a_setting_that_cannot_be_says_what_can(settings: dict[str, Any], what: str, next_step: str) -> None:
    with pytest.raises((ModelError, RecipeError)) as caught:
        classifier(**settings)
    assert what in caught.value.what
    assert caught.value.where
    assert next_step in str(caught.value.next)


def test_it_has_neither_pooler_nor_tokenizer_nor_native_head() -> None:
    with pytest.raises(ModelError, match="awd_lstm has no pooler"):
        load(words=WORDS, pooler=True)
    with pytest.raises(ModelError, match="awd_lstm has no tokenizer of its own"):
        resolve("awd_lstm")
    with pytest.raises(ModelError, match="no classification head of its own"):
        load_classifier(backbone="awd_lstm", head=HeadSettings("native"), labels=LABELS, multi_label=False)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_scores_do_not_depend_on_padding_and_only_the_kept_tokens_are_pooled(direction: str) -> None:
    ours = classifier(direction=direction).eval()
    spread(ours.backbone)
    batch = make_batch([1600, 40, 150], pad_to=1700)
    with torch.no_grad():
        together = ours(batch)
        hidden = ours.hidden(batch)
        for row, length in enumerate([1600, 40, 150]):
            torch.testing.assert_close(ours(one(batch.input_ids[row, :length]))[0], together[row], **CLOSE)
        # by hand: 1,600 tokens lose their first three chunks in the order of reading
        kept = hidden[0, 216:1600] if direction == "forward" else hidden[0, :1384]
        last = hidden[0, 1599] if direction == "forward" else hidden[0, 0]
        expected = torch.cat([last, kept.max(dim=0).values, kept.mean(dim=0)])
        torch.testing.assert_close(ours.embed(batch, "concat")[0], expected)


def test_a_classifier_is_built_anew_from_its_config_with_the_statistics_of_its_norms() -> None:
    ours = classifier(direction="backward", drop_mult=0.3)
    ours.train()(make_batch([30, 50, 9]))
    assert ours.needs_whole_step
    again = build_classifier(json.loads(json.dumps(ours.config())))
    again.load_state_dict(ours.state_dict(), strict=True)
    batch = make_batch([11, 90])
    assert torch.equal(again.eval()(batch), ours.eval()(batch))
    assert isinstance(again.backbone, AwdLstm)
    assert again.backbone.sizes == Sizes(**SMALL)


def tiny_bundle(folder: Path) -> Bundle:
    subwords = Subwords.load(tiny_folder(folder, "bert", name="tokenizer"))
    words = [f"piece{number}" for number in range(subwords.vocabulary_size)]
    ours = classifier(words=words)
    spread(ours.backbone)
    return save_bundle(
        folder / "bundle",
        classifier=ours,
        subwords=subwords,
        task="single_label",
        text=TextSettings(max_length=100, columns=("text",), label_columns=("label",)),
        recipe_yaml="task: single_label\n",
    )


def test_a_bundle_gives_the_same_scores_after_it_was_saved(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    texts = ["A good film with a warm heart.", "The plot is bad, and the end is worse. " * 8, ""]
    again = Bundle.load(tmp_path / "bundle")
    assert again.scores(texts).tobytes() == bundle.scores(texts).tobytes()
    assert again.classifier.config()["backbone"]["backbone"] == "awd_lstm"
    assert again.embed(texts, pool="concat").shape == (3, 18)  # type: ignore[union-attr]


def test_a_bundle_with_another_vocabulary_size_is_refused(tmp_path: Path) -> None:
    tiny_bundle(tmp_path)
    config = tmp_path / "bundle" / "config.json"
    changed = config.read_text("utf-8").replace('"n_words": ', '"n_words": 1')
    config.write_text(changed, "utf-8")
    with pytest.raises(BundleError):
        Bundle.load(tmp_path / "bundle")


def test_an_explanation_adds_up_through_the_chunks(tmp_path: Path) -> None:
    pytest.importorskip("captum")
    bundle = tiny_bundle(tmp_path)
    text = "The plot is bad, the pace is slow and the end is worse. " * 7  # more than one chunk of 72
    found = explain(bundle.classifier, bundle.subwords, [text], max_length=100, truncate="head", target=None)[0]
    assert found.error_share < 0.05
    assert abs(found.difference) > 1e-3
