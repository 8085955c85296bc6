"""Each diagnosis has a real run that calls for it, and a healthy run of the same recipe that does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.doctor.diagnose import CHECKS
from headrace.train.fit import fit
from tiny import tiny_folder
from tiny_fits import recipe, silent, write_csv

pytestmark = pytest.mark.slow

WORDS = {"good": ["warm", "fine", "lovely", "good", "liked"], "bad": ["slow", "bad", "worse", "never", "no"]}
OTHERS = [
    "the",
    "film",
    "story",
    "music",
    "heart",
    "cast",
    "end",
    "a",
    "with",
    "and",
    "is",
    "of",
    "my",
    "life",
    "that",
    "we",
    "made",
    "plot",
    "pace",
]


def texts(n: int, seed: int, *, by_coin: bool) -> list[dict[str, str]]:
    """Seven words each, one of which tells the label; or by a coin nothing does."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(n):
        label = ("good", "bad")[number % 2]
        words = [*random.choice(OTHERS, 6), random.choice(WORDS[label])]
        random.shuffle(words)
        told = ("good", "bad")[random.integers(2)] if by_coin else label
        found.append({"text": " ".join(words), "label": told})
    return found


def in_order(n: int, seed: int) -> list[dict[str, str]]:
    """Seven words, of which the second tells the label and the fifth would tell the other: counting words tells nothing.

    Both kinds have a word on either side, so that pairs of words tell nothing either.
    """
    random = np.random.default_rng(seed)
    found = []
    for number in range(n):
        label, other = ("good", "bad") if number % 2 == 0 else ("bad", "good")
        words = list(random.choice(OTHERS, 7))
        words[1], words[4] = random.choice(WORDS[label]), random.choice(WORDS[other])
        found.append({"text": " ".join(words), "label": label})
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doctor")
    for seed, (name, n) in enumerate({"train": 400, "valid": 240, "test": 240}.items()):
        write_csv(folder / f"{name}.csv", texts(n, seed, by_coin=False))
        write_csv(folder / f"coin-{name}.csv", texts(n, seed, by_coin=True))
        write_csv(folder / f"order-{name}.csv", in_order(n, seed))
    tiny_folder(folder)
    return folder


def settings(folder: Path, prefix: str = "", **changes: Any) -> dict[str, Any]:
    found = recipe(
        folder / f"{prefix}train.csv", folder / "bert", fit__learning_rate=3e-3, fit__epochs=5, fit__batch_size=16
    )
    found["data"] |= {name: str(folder / f"{prefix}{name}.csv") for name in ("valid", "test")}
    for key, value in changes.items():
        part, _, name = key.partition("__")
        found[part] = {**found[part], name: value} if name else value
    return found


def report_of(values: dict[str, Any], out: Path) -> dict[str, Any]:
    run = fit(values, out=out, echo=silent)
    found: dict[str, Any] = json.loads((run.folder / "report.json").read_text("utf-8"))
    return found


def codes(values: dict[str, Any], out: Path) -> set[str]:
    return {one["code"] for one in report_of(values, out)["diagnoses"]}


#: Code -> what the run that calls for it has otherwise than the healthy one.
SICK: dict[str, dict[str, Any]] = {
    "frozen_head": {"fit__learning_rate": 1e-30},
    "frozen_backbone": {"fit__layer_decay": 1e-9},
    "loss_never_moved": {"fit__learning_rate": 1e-9},
    "constant_predictions": {"fit__learning_rate": 0.5, "fit__schedule": "constant"},
    # at 0.5 it depends on the rounding of the processor whether the loss rises by more than chance
    "learning_rate_too_high": {"fit__learning_rate": 10.0, "fit__schedule": "constant", "fit__batch_size": 4},
    "no_better_than_majority": {"prefix": "coin-"},
    "no_better_than_baseline": {
        "baseline": True
    },  # one word tells all; its healthy run is the one with a baseline below
    "overfitting": {"prefix": "coin-", "data__limit": 60, "fit__epochs": 30},
    "still_improving": {"fit__learning_rate": 1e-3},
    "validation_too_small": {"data__valid": "5%"},
}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> set[str]:
    return codes(settings(folder), tmp_path_factory.mktemp("runs") / "healthy")


def test_a_healthy_run_has_no_diagnosis(healthy: set[str]) -> None:
    assert healthy == set()


def test_a_healthy_run_beats_its_baseline_where_the_order_of_the_words_decides(tmp_path: Path, folder: Path) -> None:
    report = report_of(settings(folder, "order-", baseline=True, fit__epochs=8), tmp_path / "run")
    assert report["baseline"]["metrics"]["accuracy"]["value"] < 0.65
    assert report["metrics"]["accuracy"]["value"] > 0.9
    assert report["diagnoses"] == []


@pytest.mark.parametrize("code", SICK)
def test_a_sick_run_has_its_diagnosis(code: str, tmp_path: Path, folder: Path) -> None:
    found = codes(settings(folder, **SICK[code]), tmp_path / "run")
    assert code in found


def test_every_diagnosis_is_called_for_by_a_run() -> None:
    elsewhere = {"not_finite", "threshold_at_border"}  # below, and in test_resume: it ends its run
    assert {check.__name__ for check in CHECKS} == {*SICK, *elsewhere}


def test_thresholds_that_say_always_or_never_are_told(tmp_path: Path, folder: Path) -> None:
    """Where a wrong yes costs a thousand wrong ones no, one that is never said is the cheapest."""
    found = {}
    for name, wrong_yes in (("dear", 1000), ("even", 1)):
        values = {
            **settings(folder, "coin-", data__label_separator="|"),
            "task": "multi_label",
            "decide": {"threshold": {"cost": {"false_positive": wrong_yes, "false_negative": 1}}},
        }
        found[name] = codes(values, tmp_path / name)
    assert "threshold_at_border" in found["dear"]
    assert "threshold_at_border" not in found["even"]
