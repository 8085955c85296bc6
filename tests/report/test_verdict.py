"""The verdict: its sentence, whom it is against, its tone, and what else counts."""

from __future__ import annotations

import re
from typing import Any

import pytest

from headrace.report import page_of, verdict
from headrace.report.verdict import against_baseline, difference_words, main_metric
from headrace.report.words import interval
from report import samples


def report_of(
    value: float = 0.91, *, gain: tuple[float, float, float] | None = (0.02, 0.01, 0.03), majority: float | None = 0.5
) -> dict[str, Any]:
    """A report with an accuracy of ±0.01, a baseline that the model is better than by `gain`, and a majority."""
    report: dict[str, Any] = {
        "task": "single_label",
        "split": "test",
        "n_rows": 2000,
        "metrics": {"accuracy": {"value": value, "low": value - 0.01, "high": value + 0.01}},
    }
    if gain is None and majority is None:
        return report
    baseline: dict[str, Any] = {"name": "TF-IDF + logistic regression", "metrics": {}}
    if majority is not None:
        baseline["majority"] = {"metrics": {"accuracy": majority}, "label": "neg"}
    if gain is not None:
        middle, low, high = gain
        baseline["verdict"] = {
            "metric": "accuracy",
            "a": {"name": "TF-IDF + logistic regression", "value": value - middle},
            "b": {"name": "model", "value": value},
            "difference": {"value": middle, "low": low, "high": high},
            "winner": "b" if low > 0 else "a" if high < 0 else None,
        }
    return report | {"baseline": baseline}


def sentence_of(report: dict[str, Any]) -> str:
    return verdict(report)["sentence"].replace("\u00a0", " ")


def test_a_model_that_is_better_than_both() -> None:
    assert sentence_of(report_of()) == (
        "The model gives the right answer for 91.0 % of the 2,000 test rows (95 % interval 90.0 to 92.0 %): better than "
        "TF-IDF + logistic regression by 2.0 points (1.0 to 3.0), and better than always answering “neg” (50.0 %)."
    )
    assert verdict(report_of())["tone"] == "good"


def test_a_model_that_cannot_be_told_apart_from_the_baseline() -> None:
    found = report_of(gain=(0.004, -0.006, 0.014))
    assert "not to be told apart from TF-IDF + logistic regression (difference 0.4 points, −0.6 to 1.4)" in sentence_of(
        found
    )
    assert verdict(found)["tone"] == "mixed"


def test_a_model_that_is_worse_than_the_baseline() -> None:
    found = report_of(gain=(-0.02, -0.03, -0.01))
    assert "worse than TF-IDF + logistic regression by 2.0 points (1.0 to 3.0)" in sentence_of(found)
    assert verdict(found)["tone"] == "bad"


@pytest.mark.parametrize(("majority", "words"), [(0.905, "not clearly better than"), (0.95, "worse than")])
def test_a_model_that_is_no_better_than_the_majority(majority: float, words: str) -> None:
    found = report_of(majority=majority)
    assert f"{words} always answering “neg”" in sentence_of(found)
    assert verdict(found)["tone"] == "bad"


@pytest.mark.parametrize(("gain", "words"), [(-0.348, "no better than"), (0.1, "not clearly better than")])
def test_a_difference_without_an_interval_is_not_called_small(gain: float, words: str) -> None:
    found = report_of(gain=(gain, -1, 1), majority=None)
    found["baseline"]["verdict"]["difference"] = {"value": gain, "note": "no interval"}
    assert f": {words} TF-IDF + logistic regression (" in sentence_of(found)


def test_without_anything_to_compare_with_the_figure_stands_alone() -> None:
    found = report_of(gain=None, majority=None)
    assert sentence_of(found) == (
        "The model gives the right answer for 91.0 % of the 2,000 test rows (95 % interval 90.0 to 92.0 %)."
    )
    assert verdict(found)["tone"] == "unknown"
    assert verdict(report_of(gain=None))["tone"] == "mixed"


def test_the_direction_of_the_comparison_does_not_matter() -> None:
    straight, turned = report_of(), report_of()
    compared = turned["baseline"]["verdict"]
    compared["a"], compared["b"], compared["winner"] = compared["b"], compared["a"], "a"
    compared["difference"] = {"value": -0.02, "low": -0.03, "high": -0.01}
    assert verdict(turned) == verdict(straight)
    gain = against_baseline(turned).gain
    assert (gain.value, gain.low, gain.high) == (0.02, 0.01, 0.03)


def test_of_a_loss_less_is_better() -> None:
    report = report_of()
    report["metrics"] = {"log_loss": {"value": 0.30, "low": 0.28, "high": 0.32}}
    compared = report["baseline"]["verdict"]
    compared |= {"metric": "log_loss", "difference": {"value": -0.05, "low": -0.06, "high": -0.04}}
    compared["a"]["value"], compared["b"]["value"] = 0.35, 0.30
    report["baseline"]["majority"]["metrics"] = {"log_loss": 0.69}
    assert sentence_of(report) == (
        "On 2,000 test rows the model reaches a log loss of 0.300 (95 % interval 0.280 to 0.320): better than TF-IDF + "
        "logistic regression by 0.050 (0.040 to 0.060), and better than always answering “neg” (0.690)."
    )
    assert verdict(report)["tone"] == "good"


def test_a_metric_without_an_interval_says_no_more_than_it_knows() -> None:
    report = report_of(gain=None)
    report["metrics"]["accuracy"] = {"value": 0.75, "low": None, "high": None, "note": "few rows"}
    assert sentence_of(report) == (
        "The model gives the right answer for 75.0 % of the 2,000 test rows: not clearly better than always answering "
        "“neg” (50.0 %)."
    )
    assert verdict({"metrics": {"accuracy": {"value": None, "note": "there are no rows"}}})["sentence"] == (
        "There is no figure to judge the model by (there are no rows)."
    )


def test_the_metric_is_the_one_compared_else_the_one_monitored_else_the_usual() -> None:
    metrics = {name: {"value": 0.5} for name in ("accuracy", "f1_macro", "roc_auc_macro", "log_loss")}
    report: dict[str, Any] = {"task": "multi_label", "metrics": metrics}
    assert main_metric(report) == "roc_auc_macro"
    report["recipe"] = {"fit": {"monitor": "f1_macro"}}
    assert main_metric(report) == "f1_macro"
    report["baseline"] = {"verdict": {"metric": "roc_auc"}}
    assert main_metric(report) == "roc_auc_macro"
    assert main_metric({"task": "single_label", "metrics": metrics}) == "accuracy"


def test_the_points_of_a_full_report() -> None:
    points = verdict(samples.reviews())["points"]
    texts = [point["text"].replace("\u00a0", " ") for point in points]
    assert {point["tone"] for point in points} <= {"good", "look", "plain"}
    assert texts[0] == "2 things to look at in the data and the training; see below."
    assert texts[1].startswith("141 rows evaluated here also stand in the training data. Without them: accuracy 0.900")
    assert (
        texts[2]
        == "A score can be read as a probability to within 1.0 points (95 % interval 0.6 to 1.4) on average; it was 4.3 before."
    )
    assert texts[3].startswith("To keep errors at 5 % or less it answers ")
    assert texts[4].startswith("Rows with length = more than 512 tokens do worse: accuracy 0.842 (")
    assert texts[4].endswith("overall. So does 1 more.")


def test_validation_rows_are_called_so_and_said_to_flatter() -> None:
    found = verdict(samples.bare())
    assert "of the 12 validation rows" in found["sentence"]
    assert "flatter" in found["points"][0]["text"]


def test_the_badge_says_against_whom() -> None:
    def badge(report: dict[str, Any]) -> str:
        return re.search(r'<span class="badge [a-z]+">(.*?)</span>', page_of(report)).group(1)

    assert badge(report_of()) == "Better than the baseline"
    assert badge(report_of(gain=(0.004, -0.006, 0.014))) == "No clear gain over the baseline"
    assert badge(report_of(gain=(-0.02, -0.03, -0.01))) == "Worse than the baseline"
    assert badge(report_of(majority=0.95)) == "No better than the most frequent answer"
    assert "badge" not in page_of(report_of(gain=None, majority=None)).split("</style>")[1]


def test_a_promise_that_cannot_be_made_is_said() -> None:
    texts = [point["text"] for point in verdict(samples.pairs())["points"]]
    assert "An error rate of 5\u00a0% cannot be promised for any share of the answers." in texts


def test_differences_are_told_as_amounts() -> None:
    told = difference_words(interval({"value": -0.0072, "low": -0.011, "high": -0.003}), "accuracy", 25_000)
    assert told == "0.72 points (0.30 to 1.10)"
    assert difference_words(interval({"value": -0.0072, "low": -0.011, "high": 0.003}), "accuracy", 900) == (
        "−0.7 points (−1.1 to 0.3)"
    )


def test_a_slice_of_several_labels_says_what_is_right_in_it() -> None:
    part = {"column": "site", "value": "bad", "metric": "accuracy", "overall": 0.95, "is_flagged": True}
    report = {"task": "multi_label", "slices": [part | {"value_of_metric": {"value": 0.9, "low": 0.88, "high": 0.92}}]}
    (point,) = verdict(report)["points"]
    assert point["text"] == (
        "Rows with site = bad do worse: share with every label right 0.900 (0.880 to 0.920) against 0.950 overall."
    )
    report["task"] = "single_label"
    assert "do worse: accuracy 0.900" in verdict(report)["points"][0]["text"]
