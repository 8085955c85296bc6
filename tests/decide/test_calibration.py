"""Calibrations: what they do to scores, what fitting finds, what JSON brings back, what is refused."""

import json

import numpy as np
import pytest
import torch

from decide.data import multi, single
from headrace.decide import fitting
from headrace.decide.calibration import Calibration, sigmoid, softmax
from headrace.decide.fitting import fit_calibration, fit_isotonic, fit_platt, fit_temperature
from headrace.tasks import multi_label, single_label

EVERY = [
    Calibration("none", "single_label"),
    Calibration("none", "multi_label"),
    Calibration("temperature", "single_label", {"temperature": 1 / 3}),
    Calibration("platt", "multi_label", {"slopes": [0.1, 0.7, 1 / 7], "intercepts": [-1.1, 0.2, 1e-9]}),
    Calibration(
        "isotonic", "multi_label", {"knots": [[[-2.0, 0.1], [-3.3, 1 / 3]], [[0.0], [0.5]], [[-1, 0, 1], [-1, 0, 2]]]}
    ),
]


def test_without_a_method_the_scores_are_exact_and_torch_s_but_for_torch_s_rounding():
    logits = np.random.default_rng(0).normal(0, 6, (4000, 5)).astype(np.float32)
    logits[0] = [90, -90, 0, 500, -500]
    exact = {"single_label": softmax(logits.astype(np.float64)), "multi_label": sigmoid(logits.astype(np.float64))}
    for task, module, most in (("single_label", single_label, 3e-7), ("multi_label", multi_label, 1e-7)):
        found = Calibration("none", task).apply(logits)
        assert found.dtype == np.float32
        assert np.abs(found - exact[task]).max() <= 2**-25  # half a step of float32 below 1
        torch_s = module.scores(torch.from_numpy(logits)).numpy().astype(np.float64)
        assert np.abs(found - torch_s).max() <= most
        assert np.abs(torch_s - exact[task]).max() <= most


@pytest.mark.parametrize("calibration", EVERY, ids=lambda one: f"{one.method}-{one.task}")
def test_a_calibration_comes_back_from_json_to_the_bit(calibration):
    again = Calibration.from_dict(json.loads(json.dumps(calibration.as_dict())))
    assert again == calibration
    logits = np.random.default_rng(1).normal(0, 3, (50, 3)).astype(np.float32)
    assert np.array_equal(again.apply(logits), calibration.apply(logits))
    assert again.apply(logits[:0]).shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"method": "beta"}, "no calibration 'beta'"),
        ({"method": "temperature"}, "multi_label has no calibration 'temperature'"),
        ({"task": "ranking"}, "no task 'ranking'"),
        ({"method": 1}, "are names"),
        ({"parameters": {"slopes": [1.0, 2.0], "intercepts": [0.0]}}, "2 slopes and 1 intercepts"),
        ({"parameters": {"slopes": [float("nan")], "intercepts": [0.0]}}, "not a finite number"),
        ({"parameters": {"slopes": [float("inf")], "intercepts": [0.0]}}, "not a finite number"),
        ({"parameters": {"slopes": [True], "intercepts": [0.0]}}, "not a finite number"),
        ({"parameters": {"slopes": ["1"], "intercepts": [0.0]}}, "not a finite number"),
        ({"parameters": {"slopes": [-1.0], "intercepts": [0.0]}}, "not above 0"),
        ({"parameters": {"slopes": [1.0]}}, "takes"),
        ({"parameters": {"slopes": 1.0, "intercepts": 0.0}}, "not a list"),
        ({"parameters": {"slopes": [1.0], "intercepts": [0.0], "more": 1}}, "takes"),
        ({"parameters": None}, "takes"),
        ({"method": "isotonic", "parameters": {"knots": [[[0.0, 1.0], [0.0]]]}}, "2 logits and 1"),
        ({"method": "isotonic", "parameters": {"knots": [[[1.0, 0.0], [0.0, 1.0]]]}}, "do not rise"),
        ({"method": "isotonic", "parameters": {"knots": [[[0.0, 1.0], [1.0, 1.0]]]}}, "do not rise"),
        ({"method": "isotonic", "parameters": {"knots": [[[], []]]}}, "0 logits"),
        ({"method": "isotonic", "parameters": {"knots": "none"}}, "a list"),
        ({"more": 1}, "a mapping of"),
    ],
)
def test_a_damaged_calibration_is_refused(change, reason):
    good = Calibration("platt", "multi_label", {"slopes": [1.0], "intercepts": [0.0]}).as_dict()
    with pytest.raises(ValueError, match=reason):
        Calibration.from_dict(good | change)


def test_a_temperature_is_above_zero_and_suits_the_logits():
    for wrong in (0.0, -1.0, None):
        with pytest.raises(ValueError, match=r"temperature|finite"):
            Calibration("temperature", "single_label", {"temperature": wrong})
    with pytest.raises(ValueError, match="do not suit"):
        EVERY[3].apply(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="a mapping"):
        Calibration.from_dict([])


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_the_temperature_of_the_data_is_found(true):
    logits, targets = single(20_000, temperature=true)
    assert fit_temperature(logits.astype(np.float64), targets) == pytest.approx(true, rel=0.03)


def test_the_temperature_is_where_the_log_loss_is_least():
    logits, targets = single(500, temperature=1.7, seed=3)
    own = np.arange(500)

    def loss(temperature):
        shares = softmax(logits.astype(np.float64) / temperature)
        weights = np.full_like(shares, 1 / 502 / 2)
        weights[own, targets] = 1 - 1 / 502
        return -(weights * np.log(shares)).sum()

    found = fit_temperature(logits.astype(np.float64), targets)
    assert loss(found) <= min(loss(t) for t in np.geomspace(found / 1.2, found * 1.2, 101)) + 1e-9


def test_a_model_that_is_right_on_every_row_does_not_get_boundlessly_sure():
    targets = np.arange(200) % 2
    logits = np.where(np.arange(2) == targets[:, None], 3.0, -3.0)
    temperature = fit_temperature(logits, targets)
    assert fitting.MIN_TEMPERATURE < temperature < fitting.MAX_TEMPERATURE
    # as if one of 202 rows had been wrong
    assert softmax(logits / temperature).max() == pytest.approx(1 - 1 / 202, abs=1e-6)
    assert fit_temperature(-logits, targets) == fitting.MAX_TEMPERATURE
    assert fit_temperature(np.zeros((200, 2)), targets) == pytest.approx(fitting.MAX_TEMPERATURE)


def test_platt_finds_the_line_of_the_data():
    logits, targets = multi(40_000, slope=2.0, shift=1.0)  # truth = 0.5 x logit - 0.5
    found = fit_calibration("platt", logits, targets).parameters
    assert found["slopes"] == pytest.approx([0.5] * 6, rel=0.06)
    assert found["intercepts"][:4] == pytest.approx([-0.5] * 4, abs=0.1)


def test_platt_agrees_with_logistic_regression_on_his_targets():
    from sklearn.linear_model import LogisticRegression

    logits, targets = multi(800, slope=1.5, shift=0.5, base=np.array([-1.0]))
    x, y = logits[:, 0].astype(np.float64), targets[:, 0]
    n_with, n_without = y.sum(), (1 - y).sum()
    wanted = np.where(y == 1, (n_with + 1) / (n_with + 2), 1 / (n_without + 2))
    both = np.concatenate([x, x])[:, None]
    reference = LogisticRegression(C=1e12, tol=1e-12, max_iter=1000).fit(
        both, np.repeat([1, 0], len(x)), sample_weight=np.concatenate([wanted, 1 - wanted])
    )
    slope, intercept = fit_platt(x, y == 1)
    assert slope == pytest.approx(float(reference.coef_[0, 0]), rel=1e-4)
    assert intercept == pytest.approx(float(reference.intercept_[0]), abs=1e-4)


def test_platt_keeps_the_order_and_leaves_very_rare_labels_alone():
    random = np.random.default_rng(0)
    x, y = random.normal(size=300), random.random(300) < 0.3
    assert fit_platt(-5 * (y - 0.5), y)[0] == fitting.MIN_SLOPE  # upside down
    assert fit_platt(np.full(300, 2.0), y)[0] == fitting.MIN_SLOPE
    slope, intercept = fit_platt(np.full(300, 2.0), y)
    assert sigmoid(2.0 * slope + intercept) == pytest.approx(y.mean(), abs=0.01)
    separable = fit_platt(np.where(y, 4.0, -4.0) + 0.1 * x, y)
    assert np.isfinite(separable).all()
    assert separable[0] < 5
    rare = np.zeros(300, dtype=bool)
    rare[: fitting.MIN_KIND - 1] = True
    assert fit_platt(x, rare) == (1.0, 0.0)
    assert fit_platt(x, ~rare) == (1.0, 0.0)


def test_isotonic_rises_and_is_never_sure():
    random = np.random.default_rng(0)
    x = random.normal(0, 3, 5000)
    y = random.random(5000) < sigmoid(2 * np.tanh(x))  # no line in the space of logits
    knots = fit_isotonic(x, y)
    calibration = Calibration("isotonic", "multi_label", {"knots": [knots]})
    grid = np.linspace(-60, 60, 4001)
    scores = calibration.apply(grid[:, None])[:, 0]
    assert (np.diff(scores) >= 0).all()
    assert 0 < scores.min() < scores.max() < 1
    inner = np.abs(grid) < 4
    assert (np.diff(scores[inner]) > 0).all()
    assert np.abs(scores[inner] - sigmoid(2 * np.tanh(grid[inner]))).mean() < 0.03
    line = Calibration(
        "platt", "multi_label", dict(zip(("slopes", "intercepts"), np.array([fit_platt(x, y)]).T, strict=True))
    )
    assert np.abs(line.apply(grid[inner, None])[:, 0] - sigmoid(2 * np.tanh(grid[inner]))).mean() > 0.04
    far = Calibration("isotonic", "multi_label", {"knots": [[[0.0, 1e-3], [-90.0, 90.0]]]}).apply(
        np.array([[-1e6], [1e6]])
    )
    assert 0 < far.min() < far.max() < 1


def test_isotonic_of_noise_and_of_separable_labels_stays_inside():
    random = np.random.default_rng(1)
    x, y = random.normal(size=3000), random.random(3000) < 0.2
    apply = Calibration(
        "isotonic", "multi_label", {"knots": [fit_isotonic(-x, -x < -9)]}
    ).apply  # one kind alone: as it was
    assert apply(np.array([[0.7]]))[0, 0] == pytest.approx(sigmoid(0.7), rel=1e-6)
    noise = Calibration("isotonic", "multi_label", {"knots": [fit_isotonic(x, y)]}).apply(
        np.linspace(-1, 1, 9)[:, None]
    )
    assert noise == pytest.approx(np.full_like(noise, 0.2), abs=0.05)
    sure = Calibration("isotonic", "multi_label", {"knots": [fit_isotonic(x, x > 0.5)]}).apply(
        np.array([[-3.0], [3.0]])
    )
    assert sure.min() > 1e-6
    assert sure.max() < 1 - 1e-6


def test_isotonic_gives_labels_with_few_rows_platt_s_line():
    logits, targets = multi(2000, base=np.array([0.0, -1.0, -7.0]))
    found = fit_calibration("isotonic", logits, targets)
    line = fit_calibration("platt", logits, targets)
    assert fitting.MIN_KIND < targets[:, 2].sum() < fitting.ISOTONIC_MIN_KIND
    assert len(found.parameters["knots"][0][0]) > 5
    assert found.apply(logits)[:, 2] == pytest.approx(line.apply(logits)[:, 2], rel=1e-5)
