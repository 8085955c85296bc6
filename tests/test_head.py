from __future__ import annotations

import logging
import warnings
from dataclasses import FrozenInstanceError, asdict, replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from headrace.errors import RecipeError
from headrace.head import BatchNorm, Head, HeadSettings, UlmfitHead, fit_classical, pool_hidden, pooled_width

HIDDEN = torch.tensor([[[1.0, -4.0], [3.0, -2.0], [99.0, 99.0]], [[-5.0, 6.0], [0.0, 0.0], [0.0, 0.0]]])
MASK = torch.tensor([[1, 1, 0], [1, 0, 0]])


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ("cls", [[1.0, -4.0], [-5.0, 6.0]]),
        ("mean", [[2.0, -3.0], [-5.0, 6.0]]),
        ("max", [[3.0, -2.0], [-5.0, 6.0]]),
        ("concat", [[3.0, -2.0, 3.0, -2.0, 2.0, -3.0], [-5.0, 6.0, -5.0, 6.0, -5.0, 6.0]]),
    ],
)
def test_pooling_sees_real_tokens_only(pool, expected):
    assert pool_hidden(HIDDEN, MASK, pool).tolist() == expected


def test_concat_takes_the_last_token_from_where_it_is_told():
    pooled = pool_hidden(HIDDEN, MASK, "concat", last=torch.tensor([0, 0]))
    assert pooled[0].tolist() == [1.0, -4.0, 3.0, -2.0, 2.0, -3.0]
    assert pooled_width(2, "concat") == pooled.shape[1]
    assert pooled_width(2, "mean") == 2


@pytest.mark.parametrize("pool", ["mean", "max", "concat"])
def test_a_text_without_tokens_pools_to_zeros_and_padding_may_be_nan(pool):
    hidden = HIDDEN.clone()
    hidden[0, 2] = torch.nan
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    pooled = pool_hidden(hidden, mask, pool)
    assert torch.isfinite(pooled).all()
    assert not pooled[1].any()
    assert pool_hidden(hidden.bfloat16(), mask, pool).dtype == torch.float32


def test_an_unknown_pooling_is_answered_with_the_nearest():
    with pytest.raises(RecipeError) as caught:
        pool_hidden(HIDDEN, MASK, "meen")
    assert caught.value.next == "did you mean 'mean'? available: cls, concat, max, mean"


def test_the_linear_head_is_dropout_and_one_layer():
    head = Head(2, 3, dropout=0.5).eval()
    assert [type(module).__name__ for module in head.children()] == ["Dropout", "Linear"]
    x = torch.tensor([[1.0, 2.0]])
    torch.testing.assert_close(head(x), x @ head.output.weight.T + head.output.bias)
    assert head.dropout.p == 0.5


def test_the_hidden_head_is_linear_relu_dropout_linear():
    head = Head(2, 3, hidden=4, dropout=0.0)
    x = torch.tensor([[1.0, -2.0]])
    inner = (x @ head.hidden.weight.T + head.hidden.bias).clamp(min=0)
    torch.testing.assert_close(head(x), inner @ head.output.weight.T + head.output.bias)
    head.dropout.p = 1 - 1e-9  # dropout stands before the last layer: nothing but its bias comes through
    torch.testing.assert_close(head.train()(x), head.output.bias[None])


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"name": "linaer"}, "there is no head 'linaer'"),
        ({"pool": "clss"}, "there is no pooling 'clss'"),
        ({"hidden": -1}, "a hidden layer of -1 is not possible"),
        ({"dropout": 1.0}, "a dropout of 1.0 is not in [0, 1)"),
        ({"name": "svm", "hidden": 8}, "the head 'svm' has no hidden layer of ours"),
        ({"name": "ulmfit", "pool": "mean"}, "the head 'ulmfit' pools with concat, not mean"),
        ({"name": "ulmfit", "hidden": 0}, "the head 'ulmfit' has a hidden layer"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, what):
    with pytest.raises(RecipeError) as caught:
        HeadSettings(**settings)
    assert caught.value.what == what
    assert caught.value.where.startswith("head: ")
    assert caught.value.next


def test_what_is_not_given_is_the_default_of_the_head_that_is_named():
    assert asdict(HeadSettings()) == {"name": "linear", "pool": "cls", "hidden": 0, "dropout": 0.1}
    assert asdict(HeadSettings("ulmfit")) == {"name": "ulmfit", "pool": "concat", "hidden": 50, "dropout": 0.4}
    changed = HeadSettings(name="ulmfit", hidden=20, dropout=0.0)
    assert asdict(changed) == {"name": "ulmfit", "pool": "concat", "hidden": 20, "dropout": 0.0}
    assert HeadSettings(**asdict(changed)) == replace(changed) == changed
    with pytest.raises(FrozenInstanceError):
        changed.hidden = 3


def test_the_ulmfit_head_is_two_blocks_of_norm_dropout_linear():
    torch.manual_seed(0)
    head = UlmfitHead(6, 3, hidden=4, dropout=0.25).eval()
    assert [type(module).__name__ for module in head.children()] == ["BatchNorm", "Dropout", "Linear"] * 2
    assert (head.dropout.p, head.output_dropout.p) == (0.25, 0.1)
    assert head.hidden.bias is None
    assert head.output.bias is None
    for norm in (head.norm, head.output_norm):
        assert norm.bias.tolist() == pytest.approx([1e-3] * norm.num_features)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(5, 6)

    def normalized(norm: BatchNorm, values: torch.Tensor) -> torch.Tensor:
        return (values - norm.running_mean) / (norm.running_var + 1e-5).sqrt() * norm.weight + norm.bias

    inner = (normalized(head.norm, x) @ head.hidden.weight.T).clamp(min=0)
    torch.testing.assert_close(head(x), normalized(head.output_norm, inner) @ head.output.weight.T)


def test_the_ulmfit_head_normalizes_a_training_batch_by_itself_and_remembers_it():
    torch.manual_seed(0)
    head = UlmfitHead(6, 3, dropout=0.0).train()
    x = 5 + 3 * torch.randn(64, 6)
    seen = []
    head.hidden.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    head(x)
    torch.testing.assert_close(seen[0].mean(dim=0), torch.full((6,), 1e-3), rtol=0, atol=1e-5)
    torch.testing.assert_close(seen[0].var(dim=0, correction=0), torch.ones(6), rtol=0, atol=1e-4)
    torch.testing.assert_close(head.norm.running_mean, 0.1 * x.mean(dim=0))


def test_a_training_batch_of_one_text_uses_the_running_statistics_and_leaves_them():
    torch.manual_seed(0)
    head = UlmfitHead(6, 3, dropout=0.0).train()
    head.output_dropout.p = 0.0
    for _ in range(20):
        head(2 + torch.randn(16, 6))
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    x = torch.randn(1, 6)
    logits = head(x)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in head.state_dict().items())
    torch.testing.assert_close(logits, head.eval()(x))
    assert head.train()(x[:0]).shape == (0, 3)


def test_dropout_before_the_hidden_layer_has_the_given_rate():
    torch.manual_seed(0)
    head = UlmfitHead(50, 3, dropout=0.3).train()
    seen = []
    head.hidden.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    head(torch.randn(200, 50))
    # 10,000 draws: five standard deviations are 0.023
    assert abs((seen[0] == 0).double().mean().item() - 0.3) < 0.023


def blobs(n_labels: int, n_rows: int = 240, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Return overlapping clouds on very different scales, one of whose features is constant."""
    draw = np.random.default_rng(n_labels)
    targets = draw.integers(0, n_labels, n_rows)
    features = draw.normal(size=(n_labels, width))[targets] + draw.normal(size=(n_rows, width))
    features = features * np.array([1, 10, 0.1, 100, 1, 0]) + np.array([0, 50, 3, -200, 1, 7])
    return features.astype(np.float32), targets


def reference(name: str, seed: int = 3, c: float = 1.0):
    kind = LinearSVC if name == "svm" else LogisticRegression
    return make_pipeline(StandardScaler(), kind(C=c, max_iter=5000, random_state=seed))


def logits(features, weight, bias):
    return features @ weight.T + bias


@pytest.mark.parametrize("n_labels", [2, 3, 5])
@pytest.mark.parametrize("name", ["svm", "logistic"])
def test_single_label_answers_equal_scikit_learns(name, n_labels):
    features, targets = blobs(n_labels)
    model = reference(name, c=0.5).fit(features.astype(np.float64), targets)
    weight, bias = fit_classical(features, targets, name=name, multi_label=False, seed=3, c=0.5)
    assert weight.shape == (n_labels, 6)
    assert bias.shape == (n_labels,)
    assert weight.dtype == bias.dtype == np.float32
    found = logits(features, weight, bias)
    assert (found.argmax(axis=1) == model.predict(features.astype(np.float64))).all()
    if name == "logistic":
        probabilities = torch.softmax(torch.from_numpy(found), dim=1).numpy()
        np.testing.assert_allclose(probabilities, model.predict_proba(features.astype(np.float64)), atol=1e-4)
    else:
        decision = model.decision_function(features.astype(np.float64))
        ours = found[:, 1] - found[:, 0] if n_labels == 2 else found
        np.testing.assert_allclose(ours, decision, atol=1e-3)


@pytest.mark.parametrize("name", ["svm", "logistic"])
def test_multi_label_answers_equal_one_fit_a_label(name):
    features, groups = blobs(4)
    targets = np.stack([groups == 0, groups >= 2, groups % 2 == 1], axis=1).astype(np.float32)
    weight, bias = fit_classical(features, targets, name=name, multi_label=True, seed=3)
    found = logits(features, weight, bias)
    for label in range(3):
        model = reference(name).fit(features.astype(np.float64), targets[:, label].astype(int))
        np.testing.assert_allclose(found[:, label], model.decision_function(features.astype(np.float64)), atol=1e-3)
        assert ((found[:, label] > 0) == model.predict(features.astype(np.float64))).all()


def test_a_label_without_rows_never_wins():
    features, targets = blobs(2)
    weight, bias = fit_classical(features, targets * 2, name="logistic", multi_label=False, seed=0, n_labels=4)
    found = logits(features, weight, bias)
    assert weight.shape == (4, 6)
    assert set(found.argmax(axis=1)) == {0, 2}
    assert torch.softmax(torch.from_numpy(found), dim=1)[:, [1, 3]].max() == 0


def test_a_multi_label_column_of_one_value_gives_its_log_odds():
    features, groups = blobs(2, n_rows=100)
    targets = np.stack([groups, np.zeros(100), np.ones(100)], axis=1)
    weight, bias = fit_classical(features, targets, name="logistic", multi_label=True, seed=0)
    assert not weight[1:].any()
    # log(0.5 / 100.5) and its negative
    np.testing.assert_allclose(bias[1:], [-5.303305, 5.303305], atol=1e-5)


def test_one_class_alone_is_refused_and_so_is_an_unknown_name():
    features, targets = blobs(2)
    with pytest.raises(RecipeError, match="needs texts of at least two labels"):
        fit_classical(features, targets * 0, name="svm", multi_label=False, seed=0)
    with pytest.raises(RecipeError, match="'svn' is no classical head") as caught:
        fit_classical(features, targets, name="svn", multi_label=False, seed=0)
    assert caught.value.next.startswith("did you mean 'svm'?")


def test_a_solver_that_does_not_converge_is_told_once_in_the_log(caplog, monkeypatch):
    monkeypatch.setattr("headrace.head._classical", lambda name, seed, c: LogisticRegression(max_iter=1))
    features, targets = blobs(3)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        fit_classical(features, targets, name="logistic", multi_label=False, seed=0)
    assert len(caplog.messages) == 1
    assert "did not converge" in caplog.text


def test_the_fitted_weights_stand_in_a_plain_linear_layer():
    features, targets = blobs(3)
    weight, bias = fit_classical(features, targets, name="svm", multi_label=False, seed=0)
    head = Head(6, 3, dropout=0.0)
    head.set_output(weight, bias)
    with torch.no_grad():
        found = head(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(found, logits(features, weight, bias), rtol=1e-4, atol=1e-3)
    assert set(head.state_dict()) == {"output.weight", "output.bias"}
