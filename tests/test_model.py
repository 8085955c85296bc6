from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from headrace import plugins
from headrace.backbones._base import Backbone
from headrace.data.examples import LabelSet
from headrace.errors import ModelError, RecipeError
from headrace.model import Classifier, HeadSettings, build_classifier, load_classifier
from tiny_models import CHECKPOINT_LABELS, FAMILIES, PAD_IDS, make_batch, save_checkpoints, save_encoders

LABELS = LabelSet(("no", "yes", "maybe"))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny models are three times slower on several threads of a busy machine."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> dict[str, Path]:
    return save_encoders(tmp_path_factory.mktemp("encoders"))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    return save_checkpoints(tmp_path_factory.mktemp("checkpoints"))


def load(folder: Path, head: HeadSettings | None = None, **settings) -> Classifier:
    backbone = {"name": str(folder), **settings}
    return load_classifier(backbone=backbone, head=head or HeadSettings(), labels=LABELS, multi_label=False)


@pytest.mark.parametrize(
    "head",
    [
        HeadSettings(),
        HeadSettings(pool="mean", hidden=16, dropout=0.3),
        HeadSettings(pool="max"),
        HeadSettings(pool="concat"),
        HeadSettings(name="ulmfit"),
        HeadSettings(pool="pooler"),
        HeadSettings(name="native"),
        HeadSettings(name="svm", pool="mean"),
    ],
    ids=lambda head: f"{head.name}-{head.pool}",
)
@pytest.mark.parametrize("family", FAMILIES)
def test_config_and_state_reproduce_the_logits_bit_for_bit(family, head, encoders):
    if head.pool == "pooler" and family not in ("bert", "roberta"):
        with pytest.raises(ModelError, match=f"the family '{family}' has no pooler"):
            load(encoders[family], head)
        return
    ours = load(encoders[family], head).eval()
    config = json.loads(json.dumps(ours.config(), allow_nan=False))
    again = build_classifier(config).eval()
    assert again.config() == ours.config()
    again.load_state_dict(ours.state_dict(), strict=True)
    batch = make_batch([11, 7, 20], pad_id=PAD_IDS[family])
    with torch.no_grad():
        expected, found = ours(batch), again(batch)
    assert expected.shape == (3, 3)
    assert expected.dtype == torch.float32
    assert torch.equal(expected, found)
    assert again.labels == LABELS
    assert again.multi_label is False


@pytest.mark.parametrize("family", FAMILIES)
def test_native_logits_equal_those_of_auto_model_for_sequence_classification(family, checkpoints):
    labels = LabelSet(CHECKPOINT_LABELS)
    ours = load_classifier(
        backbone=str(checkpoints[family]), head=HeadSettings(name="native"), labels=labels, multi_label=True
    ).eval()
    reference = AutoModelForSequenceClassification.from_pretrained(checkpoints[family]).eval()
    batch = make_batch([11, 7], pad_id=PAD_IDS[family])
    arguments = {"token_type_ids": batch.token_type_ids} if family in ("bert", "electra") else {}
    with torch.no_grad():
        expected = reference(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **arguments).logits
        torch.testing.assert_close(ours(batch), expected, atol=1e-5, rtol=0)


def test_the_label_names_of_a_fine_tuned_checkpoint_can_be_taken(checkpoints, encoders):
    head = HeadSettings(name="native")
    ours = load_classifier(backbone=str(checkpoints["bert"]), head=head, labels=None, multi_label=False)
    assert ours.labels == LabelSet(CHECKPOINT_LABELS)
    with pytest.raises(ModelError, match="does not name its labels"):
        load_classifier(backbone=str(encoders["bert"]), head=head, labels=None, multi_label=False)
    with pytest.raises(RecipeError, match="there are no labels"):
        load_classifier(backbone=str(checkpoints["bert"]), head=HeadSettings(), labels=None, multi_label=False)


@pytest.mark.parametrize("name", ["linear", "native"])
@pytest.mark.parametrize("family", FAMILIES)
def test_groups_end_with_the_head_and_hold_each_parameter_once(family, name, encoders):
    ours = load(encoders[family], HeadSettings(name=name))
    groups = ours.groups()
    assert [group for group, _ in groups] == ["embeddings", "layer 0", "layer 1", "head"]
    held = [id(parameter) for _, parameters in groups for parameter in parameters]
    assert sorted(held) == sorted(id(parameter) for parameter in ours.parameters())
    assert len(groups[-1][1]) > 0


@pytest.mark.parametrize("head", [HeadSettings(pool="mean", hidden=8), HeadSettings(name="native")])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_gets_a_gradient(family, head, encoders):
    ours = load(encoders[family], head, dropout=0.0).train()
    ours(make_batch([12, 9, 4], pad_id=PAD_IDS[family])).pow(2).sum().backward()
    assert [name for name, parameter in ours.named_parameters() if parameter.grad is None] == []


def test_hidden_and_embeddings_are_those_of_the_backbone(encoders):
    ours = load(encoders["bert"], HeadSettings(pool="pooler")).eval()
    reference = AutoModel.from_pretrained(encoders["bert"]).eval()
    batch = make_batch([11, 7])
    with torch.no_grad():
        expected = reference(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, token_type_ids=batch.token_type_ids
        )
        hidden = ours.hidden(batch)
        torch.testing.assert_close(hidden, expected.last_hidden_state, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.embed(batch, "pooler"), expected.pooler_output, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.embed(batch)[1], hidden[1, :7].mean(dim=0), atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.embed(batch, "max")[1], hidden[1, :7].amax(dim=0))
        torch.testing.assert_close(ours.embed(batch, "cls"), hidden[:, 0])
        without = load(encoders["bert"])
        with pytest.raises(ModelError, match="this 'bert' was built without its pooler"):
            without.embed(batch, "pooler")


def test_logits_stay_float32_under_bfloat16_autocast(encoders):
    batch = make_batch([11, 7])
    for head in (HeadSettings(pool="mean", hidden=8), HeadSettings(name="native")):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            assert load(encoders["bert"], head).eval()(batch).dtype == torch.float32


def test_a_classical_head_drops_nothing_in_training_mode(encoders):
    ours = load(encoders["bert"], HeadSettings(name="logistic", dropout=0.5), dropout=0.0).train()
    batch = make_batch([11, 7])
    assert torch.equal(ours(batch), ours(batch))


def test_unknown_settings_of_a_backbone_are_named(encoders):
    with pytest.raises(RecipeError) as caught:
        load(encoders["bert"], widht=3)
    assert caught.value.what == "the backbone has no setting 'widht'"
    assert caught.value.next == "available: dropout, name, revision, weights"
    with pytest.raises(RecipeError, match="the backbone has no name"):
        load_classifier(backbone={"weights": "none"}, head=HeadSettings(), labels=LABELS, multi_label=False)


def test_settings_reach_the_backbone(encoders):
    ours = load(encoders["bert"], HeadSettings(dropout=0.2), weights="none", dropout=0.4)
    assert {m.p for m in ours.modules() if isinstance(m, torch.nn.Dropout)} == {0.4, 0.2}
    assert ours.config()["backbone"]["source"]["weights"] == "none"


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.pop("labels"),
        lambda config: config.update(code="x"),
        lambda config: config["head"].update(code="x"),
        lambda config: config["head"].update(name="nothing"),
        lambda config: config.update(backbone={"backbone": "os"}),
        lambda config: config.update(backbone={"backbone": "_weights"}),
        lambda config: config["backbone"]["architecture"].update(auto_map={"AutoModel": "x.Y"}),
        lambda config: config["backbone"]["architecture"].update(hidden_size=10**9),
        lambda config: config["backbone"].pop("architecture"),
        lambda config: config["backbone"].update(architecture=[1]),
    ],
)
def test_a_config_that_was_changed_is_refused(change, encoders):
    config = load(encoders["bert"]).config()
    change(config)
    with pytest.raises(ModelError):
        build_classifier(config)


def test_a_fresh_native_head_is_logged(encoders, caplog):
    with caplog.at_level(logging.INFO, logger="headrace"):
        load(encoders["bert"], HeadSettings(name="native"))
    assert "it has no classification head; random weights for classifier.bias, classifier.weight" in caplog.text


class Counts(Backbone):
    """A backbone of another family: one learned vector."""

    family, width = "counts", 4

    def __init__(self) -> None:
        super().__init__()
        self.vector = torch.nn.Parameter(torch.ones(4))

    def forward(self, batch):
        return batch.input_ids.unsqueeze(-1) * self.vector

    def groups(self):
        return [("vector", [self.vector])]

    def config(self):
        return {"backbone": "counts"}


def test_a_new_backbone_is_one_new_module(monkeypatch):
    module = ModuleType("counts")
    module.load = lambda name, *, pooler=False: Counts()
    module.build = lambda config, *, pooler=False: Counts()
    real_names, real_find = plugins.names, plugins.find
    monkeypatch.setattr(plugins, "names", lambda kind: [*real_names(kind), "counts"])
    monkeypatch.setattr(plugins, "find", lambda kind, name: module if name == "counts" else real_find(kind, name))
    ours = load_classifier(backbone="counts", head=HeadSettings(pool="mean"), labels=LABELS, multi_label=False).eval()
    again = build_classifier(ours.config()).eval()
    again.load_state_dict(ours.state_dict())
    assert torch.equal(ours(make_batch([3, 5])), again(make_batch([3, 5])))
    assert [name for name, _ in ours.groups()] == ["vector", "head"]
    with pytest.raises(ModelError, match="the backbone 'counts' has no classification head of its own"):
        load_classifier(backbone="counts", head=HeadSettings(name="native"), labels=LABELS, multi_label=False)


def test_the_model_needs_no_lightning():
    assert "headrace.model" in sys.modules
    import headrace.model

    assert not [name for name in vars(headrace.model) if "lightning" in name]


@pytest.mark.parametrize(("head", "whole"), [("linear", False), ("ulmfit", True), ("native", False), ("svm", False)])
def test_a_head_with_batch_norm_needs_all_texts_of_a_step_at_once(head, whole, encoders):
    assert load(encoders["bert"], HeadSettings(head)).needs_whole_step is whole


def test_concat_is_the_last_real_token_the_highest_and_the_mean_on_any_encoder(encoders):
    ours = load(encoders["distilbert"], HeadSettings(pool="concat")).eval()
    batch = make_batch([11, 7], pad_id=PAD_IDS["distilbert"], pad_to=15)
    with torch.no_grad():
        hidden, found = ours.hidden(batch), ours.embed(batch, "concat")
    for row, length in enumerate([11, 7]):
        real = hidden[row, :length]
        expected = torch.cat([real[-1], real.max(dim=0).values, real.mean(dim=0)])
        torch.testing.assert_close(found[row], expected)
    assert ours.head.output.in_features == 3 * ours.backbone.width


def test_a_setting_of_another_backbone_is_refused_with_what_there_is(encoders):
    with pytest.raises(RecipeError) as caught:
        load(encoders["bert"], drop_mult=0.5)
    assert caught.value.what == "the backbone has no setting 'drop_mult'"
    assert caught.value.next == "available: dropout, name, revision, weights"
