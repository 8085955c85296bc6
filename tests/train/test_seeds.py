"""One recipe with several seeds: a run each, the spread, the best by validation, and a comparison that pools them."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from headrace.compare import compare
from headrace.errors import DataError, RecipeError, RunError
from headrace.recipe import load_recipe
from headrace.train.fit import fit
from headrace.train.seeds import SeedsRun, Spread, fit_seeds, seeds_from
from tiny import tiny_folder
from tiny_fits import recipe, rows, silent, weights, write_csv


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, backbone: Path) -> dict:
    folder = tmp_path_factory.mktemp("data")
    found = recipe(write_csv(folder / "train.csv", rows(40)), backbone, fit__epochs=1)
    found["data"]["test"] = str(write_csv(folder / "test.csv", [{**r, "text": f"new: {r['text']}"} for r in rows(30)]))
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, settings: dict) -> SeedsRun:
    return fit_seeds(settings, 2, out=tmp_path_factory.mktemp("runs") / "many", echo=silent)


def test_each_seed_has_a_run_of_its_own(trained: SeedsRun) -> None:
    assert trained.seeds == (13, 14)
    assert [run.folder for run in trained.runs] == [trained.folder / "seed-13", trained.folder / "seed-14"]
    assert weights(trained.runs[0].folder) != weights(trained.runs[1].folder)
    recipes = [json.loads((run.folder / "report.json").read_text())["recipe"] for run in trained.runs]
    assert [one["seed"] for one in recipes] == [13, 14]


def test_the_file_tells_seeds_best_and_spread(trained: SeedsRun) -> None:
    told = json.loads((trained.folder / "seeds.json").read_text())
    reports = [json.loads((run.folder / "report.json").read_text()) for run in trained.runs]
    values = [report["data"]["training"]["best"]["value"] for report in reports]
    assert told["seeds"] == [13, 14]
    assert told["by"] == "accuracy"
    assert told["values"] == {"13": values[0], "14": values[1]}
    assert told["best"] == (13 if values[0] >= values[1] else 14)
    assert trained.best.folder.name == f"seed-{told['best']}"
    losses = [report["metrics"]["log_loss"]["value"] for report in reports]
    found = told["metrics"]["log_loss"]
    assert found["values"] == losses
    assert (found["mean"], found["deviation"]) == pytest.approx((statistics.fmean(losses), statistics.stdev(losses)))
    assert told["split"] == "test"
    assert f"best by accuracy on validation: seed {told['best']}" in str(trained)
    assert f"log_loss: {statistics.fmean(losses):.4f} ± {statistics.stdev(losses):.4f}" in str(trained)


def test_called_again_it_trains_only_what_is_missing(trained: SeedsRun, settings: dict) -> None:
    lines: list[str] = []
    again = fit_seeds(load_recipe(settings), (13, 14, 17), out=trained.folder, echo=lines.append)
    assert [run.was_finished for run in again.runs] == [True, True, False]
    assert lines.count(f"already finished: {trained.folder / 'seed-13'} holds this run; nothing was trained") == 1
    assert json.loads((trained.folder / "seeds.json").read_text())["seeds"] == [13, 14, 17]


def test_compare_pools_the_seeds(trained: SeedsRun, settings: dict, tmp_path: Path) -> None:
    single = fit(settings, out=tmp_path / "single", overrides=["seed=21"], echo=silent)
    found = compare(single.folder, trained.folder)
    assert found.split == "test"
    assert found.n_rows == 30
    assert len(found.contestants[1].seeds) >= 2
    assert found.contestants[0].seeds == (21,)
    assert found.verdicts[0].test == "t over rows and seeds"


def test_a_folder_of_a_single_run_is_left_alone(trained: SeedsRun, settings: dict) -> None:
    with pytest.raises(RunError, match="this folder holds a single run"):
        fit_seeds(settings, 2, out=trained.folder / "seed-13", echo=silent)


def test_a_share_for_validation_drawn_by_the_seed_is_told_when_compared(settings: dict, tmp_path: Path) -> None:
    without_test = {**settings, "data": {k: v for k, v in settings["data"].items() if k != "test"}}
    runs = [fit({**without_test, "seed": seed}, out=tmp_path / str(seed), echo=silent).folder for seed in (1, 2)]
    with pytest.raises(DataError, match="were not scored on the same rows") as caught:
        compare(*runs)
    assert "drawn by the run's seed" in caught.value.next


def test_seeds_are_a_number_or_a_list() -> None:
    assert seeds_from(3, first=13) == (13, 14, 15)
    assert seeds_from([5, 1], first=13) == (5, 1)
    for wrong in (0, (), (1, 1), (-1, 2)):
        with pytest.raises(RecipeError):
            seeds_from(wrong, first=13)


def test_a_spread_without_all_values_has_no_mean() -> None:
    assert Spread.of([0.5, None]) == Spread(None, None, (0.5, None))
    assert Spread.of([0.5]) == Spread(0.5, None, (0.5,))
    assert str(Spread.of([0.5, 0.7])) == "0.6000 ± 0.1414"
