"""Intervals and paired tests: published cases, independent computations, and how often they are right."""

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from headrace import intervals, metrics
from headrace.compare import paired
from headrace.compare.pooled import mean_over_seeds, pooled_values, variance_parts
from headrace.data.examples import LabelSet
from headrace.evaluate import evaluate

# Albumin, total protein, K-G score (of ten, less is worse) of 43 patients with ovarian cancer, and whether surgery
# helped: the data of DeLong, DeLong and Clarke-Pearson (1988) as SAS/STAT prints them in its example "Comparing
# Receiver Operating Characteristic Curves" (PROC LOGISTIC).
PATIENTS = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""


def patients():
    table = np.array(PATIENTS.split(), dtype=float).reshape(-1, 4)
    return table[:, 3] == 1, {"albumin": table[:, 0], "protein": table[:, 1], "kg": 10 - table[:, 2]}


def by_all_pairs(has_label, scores):
    """DeLong's areas and covariances from all pairs of rows, as the paper defines them: [scores], [scores, scores]."""
    placed = [s[has_label][:, None] - s[~has_label] for s in scores]
    wins = [(pairs > 0) + 0.5 * (pairs == 0) for pairs in placed]
    with_label, without = np.cov([w.mean(axis=1) for w in wins]), np.cov([w.mean(axis=0) for w in wins])
    return [w.mean() for w in wins], with_label / has_label.sum() + without / (~has_label).sum()


# ------------------------------------------------------------------------------------------------------- DeLong


def test_delong_agrees_with_the_published_case():
    has_label, scores = patients()
    assert (len(has_label), int(has_label.sum())) == (43, 31)
    areas = {name: intervals.Area.of(has_label, values) for name, values in scores.items()}
    errors = {name: math.sqrt(np.sum(area.influence**2)) for name, area in areas.items()}
    # the areas and standard errors that PROC LOGISTIC prints, and its test that all three areas are equal
    assert [round(areas[name].value, 4) for name in scores] == [0.7366, 0.6478, 0.7258]
    assert [round(errors[name], 4) for name in scores] == [0.0927, 0.1000, 0.1028]
    moved = np.stack([areas[name].influence - areas["kg"].influence for name in ("albumin", "protein")])
    away = np.array([areas[name].value - areas["kg"].value for name in ("albumin", "protein")])
    assert away @ np.linalg.solve(moved @ moved.T, away) == pytest.approx(2.5340, abs=5e-5)
    found = paired.paired_areas(has_label, scores["kg"], scores["protein"])
    assert found.difference.value == pytest.approx(-0.0780, abs=5e-5)
    assert (found.difference.high - found.difference.low) / 2 / 1.959964 == pytest.approx(0.1046, abs=5e-5)
    assert found.p_value == pytest.approx(0.4561, abs=5e-5)


@pytest.mark.parametrize("digits", [8, 1])
def test_the_fast_algorithm_equals_all_pairs_also_where_scores_are_equal(digits):
    random = np.random.default_rng(3)
    has_label = random.random(150) < 0.3
    scores = np.round(random.normal(size=(2, 150)) + has_label * [[0.8], [1.1]], digits)
    areas = [intervals.Area.of(has_label, s) for s in scores]
    values, covariance = by_all_pairs(has_label, scores)
    assert [area.value for area in areas] == pytest.approx(values)
    moved = np.stack([area.influence for area in areas])
    assert moved @ moved.T == pytest.approx(covariance)
    expected = metrics.areas_per_label(has_label[:, None], scores[:1].T)[0][0]
    assert areas[0].value == pytest.approx(expected)


def test_the_mean_of_several_areas_has_the_spread_of_their_sum():
    random = np.random.default_rng(4)
    has_label = random.random((400, 2)) < 0.3
    scores = random.normal(size=(400, 2)) + has_label
    areas = [intervals.Area.of(has_label[:, i], scores[:, i]) for i in range(2)]
    mean = intervals.mean_area(areas)
    assert mean.value == pytest.approx(np.mean([area.value for area in areas]))
    total = np.sum((areas[0].influence + areas[1].influence) ** 2)
    assert np.sum(mean.influence**2) == pytest.approx(total / 4)


def test_equal_rankings_are_not_told_apart_and_get_no_interval():
    has_label = np.arange(100) < 40
    scores = np.linspace(1, 0, 100) ** 2
    found = paired.paired_areas(has_label, scores, np.sqrt(scores))
    assert (found.difference.value, found.difference.low, found.p_value) == (0.0, None, 1.0)
    assert found.difference.note == "no interval: the two are equal on every row"


# ------------------------------------------------------------------------------------------- shares of right rows


def test_the_mid_p_value_is_the_published_one():
    # Fagerland, Lydersen and Laake (2013): airway hyper-responsiveness (Bentur et al., 2009), 0.039; and complete
    # response before and after consolidation (Cavo et al., 2012), as their R package contingencytables prints it
    assert round(paired.mcnemar_mid_p(1, 7), 3) == 0.039
    assert round(paired.mcnemar_mid_p(6, 16), 6) == 0.034690
    assert paired.mcnemar_mid_p(7, 1) == paired.mcnemar_mid_p(1, 7)
    assert paired.mcnemar_mid_p(0, 0) == 1.0
    assert paired.mcnemar_mid_p(3, 3) == pytest.approx(1 - 0.5 * math.comb(6, 3) / 2**6)


def test_tangos_interval_is_the_published_one():
    assert paired.tango(6, 16, 161) == pytest.approx((-0.1240, -0.0054), abs=5e-5)  # Cavo et al.
    assert paired.tango(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)  # Bentur et al.


@pytest.mark.parametrize(("more", "less", "n"), [(0, 0, 50), (0, 3, 100), (5, 5, 100), (50, 0, 50), (200, 120, 4000)])
def test_tangos_interval_is_symmetric_inside_its_bounds_and_holds_what_the_test_does_not_reject(more, less, n):
    low, high = paired.tango(more, less, n)
    assert -1 <= low <= (more - less) / n <= high <= 1
    assert paired.tango(less, more, n) == pytest.approx((-high, -low), abs=1e-8)
    rejects = more != less and (more - less) ** 2 / (more + less) > 1.959964**2
    assert rejects == (not low <= 0 <= high)


def test_the_needed_rows_of_shares_and_of_errors_agree_where_the_difference_is_small():
    # 60 and 40 rows of 10,000: a difference of 0.002 with a standard error of 0.001
    by_shares, by_error = paired.rows_for_shares(40, 60, 10_000), paired.rows_for_error(0.002, 0.001, 10_000)
    assert by_shares == pytest.approx(by_error, rel=0.01)
    assert by_error == math.ceil(10_000 * ((1.959964 + 0.841621) / 2) ** 2)
    assert paired.rows_for_shares(5, 5, 100) is paired.rows_for_error(0.0, 0.1, 100) is None


# ------------------------------------------------------------------------------------------------ other intervals


def test_halls_interval_of_even_values_is_students_and_of_skewed_ones_reaches_to_the_long_side():
    even = np.concatenate([np.arange(50.0), -np.arange(50.0)])
    low, high = intervals.hall(0.0, intervals.mean_influence(even), df=99, bounds=(-np.inf, np.inf))
    half = 1.98421695 * even.std(ddof=1) / 10
    assert (low, high) == pytest.approx((-half, half), rel=1e-6)
    skewed = np.repeat([0.0, 5.0], [95, 5])
    low, high = intervals.hall(0.25, intervals.mean_influence(skewed))
    assert 0 < low < 0.25 < high
    assert high - 0.25 > 1.3 * (0.25 - low)
    assert intervals.hall(0.5, np.zeros(30)) is None
    assert intervals.hall(0.99, intervals.mean_influence(-skewed), bounds=(0.0, 1.0))[1] == 1.0


def test_the_variance_of_a_mean_is_that_of_its_influence_values():
    values = np.random.default_rng(5).exponential(size=80)
    assert np.sum(intervals.mean_influence(values) ** 2) == pytest.approx(values.var(ddof=1) / 80)


@pytest.mark.parametrize("digits", [6, 1])
def test_influence_values_are_what_one_row_more_changes(digits):
    random = np.random.default_rng(6)
    true = random.random((300, 2)) < 0.3
    scores = np.round(random.random((300, 2)) * 0.7 + 0.3 * true, digits)
    said = scores >= 0.5
    f1, precision = intervals.f1_influence(true, said), intervals.average_precision_influence(true[:, 0], scores[:, 0])
    ranking = metrics.Ranking.of(true[:, 0], scores[:, 0])
    step = 1e-5
    for row in (0, 1, 17, 100, 299):
        weights = np.ones((300, 1))
        before = ranking.areas(weights)[1][0]
        weights[row] += step
        assert (ranking.areas(weights)[1][0] - before) / step == pytest.approx(precision[row], abs=1e-5)
        for label in range(2):
            t, s = true[:, label].astype(float), said[:, label].astype(float)
            weighted = [2 * (w * t * s).sum() / (w * (t + s)).sum() for w in (np.ones(300), weights[:, 0])]
            assert (weighted[1] - weighted[0]) / step == pytest.approx(f1[row, label], abs=1e-5)
    assert precision.sum() == pytest.approx(0, abs=1e-9)


def test_the_corrected_percentiles_are_plain_ones_for_an_even_centred_bootstrap():
    drawn = np.linspace(-1, 1, 2001)
    assert intervals.corrected_percentiles(drawn, 0.0) == pytest.approx((-0.95, 0.95), abs=1e-3)
    low, high = intervals.corrected_percentiles(drawn, 0.2)  # the bootstrap lies below the estimate
    assert low > -0.95
    assert high > 0.95
    assert intervals.corrected_percentiles(np.full(100, 0.3), 0.3) is None


def test_an_area_near_1_from_few_positives_is_told_to_have_a_narrow_interval():
    random = np.random.default_rng(7)
    targets = (np.arange(1000) < 40).astype(int)
    second = 1 / (1 + np.exp(-(random.normal(size=1000) + 3.2 * targets)))
    found = evaluate(
        targets,
        np.stack([1 - second, second], axis=1),
        labels=LabelSet(("no", "yes")),
        task="single_label",
        split="test",
        resamples=50,
    )
    assert (
        found.metrics["roc_auc"].note == "from 40 rows of the rarer kind an interval so near 1 tends to be too narrow"
    )
    assert found.metrics["roc_auc"].low < found.metrics["roc_auc"].value < found.metrics["roc_auc"].high <= 1


# ------------------------------------------------------------------------------------------------ several of them


def test_holms_correction_keeps_the_order_and_counts_tests_that_were_not_shown():
    assert paired.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert paired.holm([0.01, None, 0.6]) == pytest.approx([0.02, None, 0.6])
    assert paired.holm([0.01, 0.04], family=3) == pytest.approx([0.03, 0.08])
    assert paired.holm([0.9, 0.8]) == [1.0, 1.0]


def test_one_run_each_is_judged_by_the_rows_alone():
    random = np.random.default_rng(8)
    drawn = [0.9 + 0.01 * random.normal(size=(1, 800)) for _ in "ab"]
    parts = variance_parts([np.array([0.9]), np.array([0.92])], drawn)
    assert parts.seeds == (0.0, 0.0)
    assert parts.df == math.inf
    assert parts.error == pytest.approx((drawn[1] - drawn[0]).std(ddof=1))


def test_several_runs_are_judged_by_what_they_differ_in_too():
    random = np.random.default_rng(9)
    shared = 0.01 * random.normal(size=800)
    values = [np.array([0.90, 0.92, 0.91]), np.array([0.93, 0.95, 0.94])]
    drawn = [v[:, None] + shared for v in values]  # the rows move all runs alike, so they cancel in the difference
    parts = variance_parts(values, drawn)
    assert parts.rows == pytest.approx(0.0, abs=1e-12)
    assert parts.seeds == pytest.approx([0.0001 / 3, 0.0001 / 3])
    assert parts.df == pytest.approx(4.0)
    found = pooled_values(values, drawn, 5000)
    assert found.difference.value == pytest.approx(0.03)
    assert found.difference.high - 0.03 == pytest.approx(2.776445 * math.sqrt(0.0002 / 3), rel=1e-5)
    assert found.p_value == pytest.approx(0.0213, abs=1e-4)
    mean = mean_over_seeds(values[0], drawn[0])
    assert mean.high - mean.value > 4.3 * 0.01 / math.sqrt(3) * 0.9


def test_where_the_seeds_alone_hide_a_difference_no_number_of_rows_is_named():
    values = [np.array([0.90, 0.94]), np.array([0.91, 0.95])]
    drawn = [v[:, None] + 0.001 * np.random.default_rng(i).normal(size=(2, 200)) for i, v in enumerate(values)]
    found = pooled_values(values, drawn, 1000)
    assert found.needed_rows is None
    assert found.difference.note == "more rows alone would not tell it, more seeds are needed"


# ------------------------------------------------------------------------------------------- how often they are right


@pytest.fixture(scope="module")
def simulation():
    """The benchmark that simulates every interval and test."""
    folder = Path(__file__).parents[1] / "benchmarks"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        spec = importlib.util.spec_from_file_location("simulated_coverage", folder / "interval_coverage.py")
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "simulated_coverage", module)
        spec.loader.exec_module(module)
        yield module


def shares_of(simulation, choose, draws):
    """The share of each method in each chosen regime, those of the methods before left out."""
    found = [
        (f"{regime.name}: {line['method']}", regime.figure, line["share"])
        for regime in simulation.regimes()
        if choose(regime)
        for line in regime.lines(draws)
        if "(before)" not in line["method"]
    ]
    assert found
    return found


def is_small(regime, n):
    settings = regime.settings
    typical = settings.get("accuracy", 0.9) == 0.9 and settings.get("area", 0.9) == 0.9
    return settings.get("n") == n and typical and settings.get("positives", 100) >= 100


def test_intervals_and_tests_are_right_about_as_often_as_they_say(simulation):
    # 300 draws: a share of 0.95 is seen as 0.95 +- 0.04 (three standard errors)
    found = shares_of(simulation, lambda r: is_small(r, 200) and r.figure != "power", 300)
    assert len(found) >= 12
    for name, figure, share in found:
        if figure == "broken promises":
            assert share < 0.1 + 0.052, (name, share)  # it may be broken 10 times of 100
        else:
            assert abs(share - (0.05 if figure == "false differences" else 0.95)) < 0.045, (name, share)


def test_a_false_interval_would_be_seen(simulation):
    tally = simulation.Tally(0.9)
    for successes in np.random.default_rng(1).binomial(200, 0.9, 300):
        low, high = intervals.wilson(int(successes), 200)
        centre = (low + high) / 2
        tally.span("too narrow", (centre - 0.35 * (high - low), centre + 0.35 * (high - low)))
    assert tally.counts["too narrow"][0] / 300 < 0.9


@pytest.mark.simulation
@pytest.mark.timeout(1800)
def test_with_1000_rows_and_100_positives_all_of_them_are_within_the_bands(simulation):
    def choose(regime):  # the means over labels resample whole rankings: ten minutes each, in the benchmark alone
        return regime.required and regime.settings.get("n", 1000) == 1000 and not regime.of.startswith("means")

    found = shares_of(simulation, choose, 4000)
    assert len(found) >= 40
    wrong = [(n, share) for n, figure, share in found if not within(simulation.BANDS[figure], share)]
    # an ECE cannot be below 0: where the truth is as good as 0 the lower end never misses
    assert [(n, share) for n, share in wrong if not (" of ECE" in n and share > 0.97)] == []


def within(band, share):
    return band[0] <= share <= band[1]
