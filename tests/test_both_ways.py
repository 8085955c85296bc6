"""A classifier that reads in both directions: two that learn alone, and the mean of their probabilities."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headrace.classifier import BothWays, Classifier
from headrace.data.examples import LabelSet
from headrace.errors import ModelError
from headrace.explain import explain
from headrace.head import HeadSettings
from headrace.model import build_classifier, load_classifier
from headrace.text.batch import Batch
from headrace.train.data import StepBatch
from headrace.train.module import ClassifierModule
from tiny_models import make_batch

WORDS = ["xxunk", "xxpad", "xxbos", *(f"w{i}" for i in range(60))]
SMALL = {"name": "awd_lstm", "weights": "none", "words": WORDS, "embedding_size": 8, "hidden_size": 12, "n_layers": 2}
LABELS = LabelSet(("no", "yes", "maybe"))


def both(*, multi_label: bool = False, **settings: Any) -> BothWays:
    torch.manual_seed(3)
    found = load_classifier(
        backbone={**SMALL, "direction": "both", **settings},
        head=HeadSettings("ulmfit", hidden=6),
        labels=LABELS,
        multi_label=multi_label,
    )
    assert isinstance(found, BothWays)
    with torch.no_grad():
        for parameter in found.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.5)
    return found.eval()


def a_batch() -> Batch:
    return make_batch([5, 3, 4], pad_id=1)


def test_the_answer_is_the_mean_of_the_probabilities() -> None:
    model = both()
    each = [logits.softmax(dim=-1) for logits in model.each_logits(a_batch())]
    assert not torch.allclose(each[0], each[1], atol=1e-3)
    assert torch.allclose(model(a_batch()).softmax(dim=-1), (each[0] + each[1]) / 2, atol=1e-6)


def test_of_several_labels_each_one_has_the_mean() -> None:
    model = both(multi_label=True)
    each = [logits.sigmoid() for logits in model.each_logits(a_batch())]
    assert torch.allclose(model(a_batch()).sigmoid(), (each[0] + each[1]) / 2, atol=1e-6)


def test_one_reader_reads_forward_and_the_other_backward() -> None:
    directions = [reader.backbone.direction for reader in both().readers]
    assert directions == ["forward", "backward"]


def test_each_reader_learns_as_if_it_were_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has the gradient of its own loss, clipped by its own norm; the loss that is told is their mean."""
    monkeypatch.setattr(ClassifierModule, "trainer", SimpleNamespace(world_size=1, strategy=None))
    monkeypatch.setattr(ClassifierModule, "manual_backward", lambda self, loss: loss.backward())
    stage = {"train": "all", "epochs": 1, "learning_rate": 0.1, "gradient_clip": 0.2}
    module = ClassifierModule(both(), LABELS.names, stage=stage)
    module.enter(module.stage)
    module.model.eval()  # no dropout, running statistics
    batch, targets = a_batch(), torch.tensor([0, 1, 2])
    batch = Batch(batch.input_ids, batch.attention_mask, None, batch.rows, targets)
    loss = module.learn(StepBatch([batch], np.arange(3), 3, 3))
    norm = module._clip(module.configure_optimizers())
    found = {name: parameter.grad.clone() for name, parameter in module.model.named_parameters()}
    losses, norms = [], []
    module.model.eval()
    for index, reader in enumerate(module.model.readers):
        reader.zero_grad()
        losses.append(nn.functional.cross_entropy(reader(batch), targets))
        losses[-1].backward()
        norms.append(nn.utils.clip_grad_norm_(reader.parameters(), 0.2))
        assert norms[-1] > 0.2
        for name, parameter in reader.named_parameters():
            assert torch.allclose(found[f"readers.{index}.{name}"], parameter.grad, atol=1e-6), name
    assert float(loss) == pytest.approx(float(sum(losses).detach()) / 2)
    assert float(norm) == pytest.approx(math.hypot(*map(float, norms)), rel=1e-5)


def test_the_groups_of_both_learn_together_and_hold_each_parameter_once() -> None:
    model = both()
    groups = model.groups()
    assert [name for name, _ in groups] == ["embeddings", "layer 0", "layer 1", "head"]
    everything = [id(parameter) for _, parameters in groups for parameter in parameters]
    assert sorted(everything) == sorted(id(parameter) for parameter in model.parameters())


def test_it_is_built_anew_from_its_config_and_weights() -> None:
    model = both()
    again = build_classifier(model.config()).eval()
    again.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(again(a_batch()), model(a_batch()))


@pytest.mark.parametrize("change", [lambda c: c[:1], lambda c: {"a": 1}, lambda c: [c[0], "x"]])
def test_a_config_that_was_changed_is_refused(change: Any) -> None:
    config = both().config()
    with pytest.raises(ModelError):
        build_classifier({"both_ways": change(config["both_ways"])})


def test_an_embedding_is_that_of_both_side_by_side() -> None:
    model = both()
    found: Tensor = model.embed(a_batch(), "mean")
    assert found.shape == (3, model.embedding_width("mean")) == (3, 16)
    readers: list[Classifier] = list(model.readers)  # type: ignore[arg-type]
    assert torch.equal(found[:, 8:], readers[1].embed(a_batch(), "mean"))


def test_weights_of_one_direction_alone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "lm_wt103_fwd.pth").write_bytes(b"")
    with pytest.raises(ModelError, match="0 files of backward weights"):
        both(weights=str(tmp_path))
    with pytest.raises(ModelError, match="needs weights of both directions"):
        both(weights=str(tmp_path / "lm_wt103_fwd.pth"))


def test_an_explanation_says_that_it_cannot_be() -> None:
    with pytest.raises(ModelError, match="two readers"):
        explain(both(), None, ["a text"], max_length=8, truncate="head", target="yes")  # type: ignore[arg-type]
