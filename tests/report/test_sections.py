"""Sections of report.html: what each says of its part of the report, and what it says where that is missing."""

from __future__ import annotations

from typing import Any

from headrace.report import page_of
from report import samples
from report.parsed import HTML, flat, nodes


def test_the_language_models_of_both_directions_have_a_section_each() -> None:
    found = nodes(page_of(samples.both_ways()))
    links = {"".join(node.itertext()): node.get("href") for node in found if node.tag == f"{HTML}a"}
    assert links["Language model"] == "#language_model"
    assert links["Backward language model"] == "#language_model_backward"
    sections = {node.get("id"): " ".join(node.itertext()) for node in found if node.tag == f"{HTML}section"}
    assert "the perplexity is 21.40" in sections["language_model"]
    assert "the perplexity is 22.90" in sections["language_model_backward"]


def test_a_card_says_that_its_marks_do_not_add_up() -> None:
    report = samples.reviews()
    marked = [one for one in report["errors"] if one["attributions"]]
    assert len(marked) > 2
    marked[0] |= {"is_exact": True, "error_share": 0.011}
    marked[1] |= {"is_exact": False, "error_share": 0.083}
    cards = [" ".join("".join(node.itertext()).split()) for node in nodes(page_of(report)) if node.tag == f"{HTML}li"]
    told = [card for card in cards if "do not add up" in card]
    assert len(told) == 1
    assert marked[1]["where"] in told[0]
    assert "do not add up: their sum is 8.3 % off what the words changed" in told[0]


def test_a_label_of_few_rows_stands_without_interval_and_the_reason_once() -> None:
    report = samples.toxic()
    few = {label: values for label, values in report["labels"].items() if values["support"] < 20}
    assert few
    page = page_of(report)
    table = next(node for node in nodes(page) if node.get("id") == "labels").find(f".//{HTML}tbody")
    for row in table.findall(f"{HTML}tr"):
        label = "".join(row.find(f"{HTML}th").itertext())
        cells = ["".join(cell.itertext()) for cell in row.findall(f"{HTML}td")]
        f1, precision, recall = cells[2], cells[4], cells[5]
        assert ("no interval" in recall) == (label in few)
        assert ("no interval" in precision) == (report["labels"][label]["n_predicted"] < 20)
        assert ("no interval" in f1) == ("no interval" in recall or "no interval" in precision)
    for note in report["notes"]:
        assert flat(page).count(note) == 1
    (note,) = [note for note in report["notes"] if "fewer than 20 rows have" in note]
    assert all(f"{label!r} ({values['support']})" in note for label, values in few.items())
    approximate = report["metrics"]["roc_auc_macro"]["note"]
    assert flat(page).count(f"over labels: {approximate}") == 1  # the cell shows the interval alone


def test_slices_by_true_label_are_said_to_be_unjudged_where_a_row_has_several() -> None:
    report = samples.toxic()
    part = {"column": "true label", "value": "threat", "n_rows": 40, "metric": "accuracy", "overall": 0.9}
    report["slices"] = [part | {"value_of_metric": {"value": 0.2, "low": 0.1, "high": 0.35}, "is_flagged": False}]
    said = "Rows by true label are not judged: a row with labels has more to get wrong"
    assert said in flat(page_of(report))
    assert said not in flat(page_of(report | {"task": "single_label"}))


def of_forecast(report: dict[str, Any]) -> str:
    section = next(node for node in nodes(page_of(report)) if node.get("id") == "forecast")
    return " ".join(" ".join(section.itertext()).split())


def test_a_run_without_forecast_says_why_beside_what_it_took() -> None:
    report = samples.reviews()
    report["forecast"] |= {"fit_s": None, "peak_memory_bytes": None, "reason": "the training is short"}
    text = of_forecast(report)
    assert "Training time – 20 min 54 s –" in text
    assert "Largest memory – 2.31 GB –" in text
    assert "There was no forecast. The training is short." in text
    assert "probing" not in text


def test_the_memory_of_a_gpu_stands_beside_its_forecast_where_there_is_one() -> None:
    report = samples.reviews()
    assert "accelerator" not in flat(page_of(report))
    report["timing"]["peak_device_bytes"] = report["forecast"]["actual_peak_device_bytes"] = 4_000_000_000
    assert "On the accelerator 4.00 GB" in flat(page_of(report))
    assert "Largest memory on the accelerator – 4.00 GB –" in of_forecast(report)
    report["forecast"]["peak_device_bytes"] = 3_600_000_000
    assert "Largest memory on the accelerator 3.60 GB 4.00 GB −10 %" in of_forecast(report)


def test_the_precision_of_the_training_is_told_where_it_is_not_that_of_the_figures() -> None:
    report = samples.reviews()
    assert "are computed in" not in flat(page_of(report))
    report["data"]["training"]["precision"] = "bf16"
    assert "Here they are computed in bf16, those of the evaluated rows in fp32" in flat(page_of(report))


def test_what_too_few_rows_did_not_allow_is_not_called_tried() -> None:
    report = samples.toxic()
    few = {"kept": False, "reason": "20 rows are too few to fit anything: 50 are needed", "after": None, "gain": None}
    report["decide"]["out_of_fold"] = True
    report["decide"]["calibration"] |= few | {"method": "none", "parameters": {}}
    report["decide"]["thresholds"] |= few | {"tried": None}
    told = flat(page_of(report))
    assert "Scores are used as the model gives them. 20 rows are too few to fit anything: 50 are needed." in told
    assert "Each label is answered where" in told
    for wrong in ("were tried", "was tried", "also fitted", "also chose the thresholds", "no part in choosing"):
        assert wrong not in told


def test_what_refused_thresholds_would_have_done_is_told() -> None:
    report = samples.toxic()
    made = report["decide"]["thresholds"]
    made |= {"kept": False, "refused": made["after"], "refused_gain": made["gain"], "after": None, "gain": None}
    told = flat(page_of(report))
    assert (
        "On the evaluated rows the mean F1 with them would be 0.558 (95 % interval 0.524 to 0.592), a change of" in told
    )


def test_a_difference_without_an_interval_says_why() -> None:
    report = samples.reviews()
    why = "no interval from fewer than 20 rows: there are 14"
    report["baseline"]["verdict"] |= {
        "difference": {"value": -0.3481, "note": why},
        "p_value": None,
        "test": "",
        "winner": None,
    }
    told = flat(page_of(report))
    assert "No interval from fewer than 20 rows: there are 14." in told
    assert "(empty)" not in told


def test_thresholds_that_were_not_kept_are_told_as_what_the_answers_are() -> None:
    report = samples.toxic()
    made = report["decide"]["thresholds"]
    made |= {"kept": False, "after": made["before"], "reason": "not kept: nothing gained"}
    made["values"] = dict.fromkeys(made["values"], 0.36)
    told = flat(page_of(report))
    assert (
        "answered where the model's own score is 0.50 or more, which on the calibrated scores is the threshold" in told
    )
    assert "With 0.50 on the model's own scores for every label." in told
    assert "After: the thresholds of the table." not in told
    made["values"] = dict.fromkeys(made["values"], 0.5)
    assert "each label is answered where its score is 0.50 or more" in flat(page_of(report))


def test_one_row_that_leaked_is_told_of_as_one() -> None:
    report = samples.reviews()
    assert "123 evaluated rows have a text that stands in the training data, too, and 18 nearly" in flat(
        page_of(report)
    )
    report["leaks"]["n_exact"] = 1
    assert "1 evaluated row has a text that stands in the training data, too" in flat(page_of(report))
