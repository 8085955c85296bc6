"""A forecast's cost model is exact on exact timings; its probe measures in a process of its own and fails in plain words."""

from __future__ import annotations

import math
import random
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headrace.recipe import load_recipe
from headrace.recipe.schema import RecipeValues
from headrace.text.batch import batches_by_length, micro_batches
from headrace.text.plan import Plan
from headrace.train import forecast as forecasts
from headrace.train import probe
from headrace.train import workload as workloads
from headrace.train.data import CPU_PASS_TOKENS
from headrace.train.fit import data_plan
from headrace.train.forecast import CostModel, Forecast, estimate, forecast, memory_words
from headrace.train.prepare import Prepared, prepare
from headrace.train.probe import Answer, Measured
from headrace.train.workload import N_REQUIRED, Pass, Workload, workload
from tiny import tiny_folder
from tiny_fits import recipe, rows, write_csv

TRUE = CostModel(step_s=0.02, pass_s=0.1, token_s=1e-3, pair_s=2e-6)
Shapes = list[tuple[int, int]]
STEPS: list[Shapes] = [
    *([(4, 20)], [(4, 20), (4, 20)], [(8, 64)], [(3, 256)], [(16, 256)]),
    [(2, 10), (9, 30), (12, 128)],
]


def passes(shapes: Shapes) -> list[Pass]:
    """Passes over texts that are equally long."""
    return [Pass.of(np.full(texts, width)) for texts, width in shapes]


def work(steps: list[Shapes], **how: Any) -> np.ndarray:
    return workloads.work([passes(step) for step in steps], **how)


def measured(shapes: Shapes, *, seconds: float, peak: int = 0) -> Measured:
    return Measured(tuple(passes(shapes)), seconds, seconds / 2, peak)


def answer(**changes: Any) -> Answer:
    """What a probe would say on a machine that keeps to the cost model."""
    peaks = (100, 200, 500, 900, 900, 900)
    steps = [measured(s, seconds=TRUE.seconds(work([s])), peak=p) for s, p in zip(STEPS, peaks, strict=True)]
    shapes = [(5, 10), (9, 100), (4, 200), (20, 50)]
    scored = [measured([s], seconds=TRUE.seconds(work([[s]], n_steps=0)) / 4) for s in shapes]
    found = Answer(
        load_s=3.0,
        steps=tuple(steps),
        valid=tuple(scored),
        scored=tuple(scored),
        checkpoint_s=0.5,
        peak_bytes=900,
        device_bytes=None,
        width=32,
    )
    return replace(found, **changes)


def load(**changes: Any) -> Workload:
    found = Workload(
        n_steps=300,
        trained=work([STEPS[5]]) * 300,
        packed=work([STEPS[4]]) * 300,
        valid=work([[(50, 40)]], n_steps=0) * 3,
        evaluated=work([[(128, 60), (128, 20)]], n_steps=0),
        costliest=passes([(16, 256)])[0],
        n_epochs=3,
        checkpoint_every_s=60.0,
        data_bytes=7,
        n_trained_rows=1000,
        is_classical=False,
    )
    return replace(found, **changes)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("backbone"))


def prepared(folder: Path, backbone: Path, **changes: Any) -> tuple[RecipeValues, Prepared]:
    values = load_recipe(recipe(write_csv(folder / "train.csv", rows(80)), backbone, **changes)).values
    return values, prepare(data_plan(values))


# -- arithmetic ----------------------------------------------------------------------------------------------------


def test_work_counts_steps_passes_tokens_and_pairs_of_tokens() -> None:
    assert work([[(2, 10), (3, 4)], [(1, 5)]]).tolist() == [2, 3, 37, 273]
    assert work([[(2, 10)]], n_steps=0).tolist() == [0, 1, 20, 200]
    assert work([]).tolist() == [0, 0, 0, 0]


def test_work_counts_padding_where_texts_are_padded() -> None:
    one = Pass.of(np.array([3, 10, 5]))
    assert one == Pass(texts=3, width=10, tokens=18, pairs=9 + 100 + 25)
    assert workloads.work([[one]]).tolist() == [1, 1, 30, 300]
    assert workloads.work([[one]], packed=True).tolist() == [1, 1, 18, 134]


def test_the_cost_model_finds_exact_timings_again() -> None:
    done = [work([step]) for step in STEPS]
    unseen = work([[(10, 200), (5, 90), (17, 40)]]) * 300
    slow_start = CostModel(1.0, 0.5, 1e-4, 1e-7)  # as an accelerator: a step costs as much as 10,000 tokens
    for true in (TRUE, CostModel(0.0, 0.01, 2e-3, 1e-5), slow_start):
        found = CostModel.fitted(done * 3, [true.seconds(one) for one in done] * 3)
        assert [found.seconds(one) for one in done] == pytest.approx([true.seconds(one) for one in done], rel=0.01)
        assert found.seconds(unseen) == pytest.approx(true.seconds(unseen), rel=0.01)


def test_three_noisy_measurements_give_a_steady_model() -> None:
    noise = np.random.default_rng(7)
    done = [work([step]) for step in ([(4, 60), (4, 60)], [(8, 128)], [(16, 128)])]
    plan = work([[(9, 128), (4, 87), (9, 52), (10, 27)], [(16, 128), (6, 65), (10, 34)]])
    errors = []
    for _ in range(200):
        found = CostModel.fitted(done, [TRUE.seconds(one) * noise.lognormal(0.0, 0.1) for one in done])
        errors.append(found.seconds(plan) / TRUE.seconds(plan) - 1)
    assert float(np.sqrt(np.mean(np.square(errors)))) < 0.11  # without the usual shares 0.15


def test_the_usual_shares_are_found_exactly_from_one_measurement() -> None:
    usual = CostModel(*(1e-3 * tokens for tokens in forecasts.USUAL_TOKENS))
    found = CostModel.fitted([work([[(7, 90)]])], [usual.seconds(work([[(7, 90)]]))])
    assert vars(found) == pytest.approx(vars(usual))


def test_no_part_of_the_cost_model_is_negative_whatever_the_noise() -> None:
    noise = np.random.default_rng(5)
    done = [work([step]) for step in STEPS]
    for _ in range(50):
        found = CostModel.fitted(done, [TRUE.seconds(one) * noise.uniform(0.5, 2.0) for one in done])
        assert min(vars(found).values()) >= 0.0
        assert 0.5 <= found.seconds(done[5]) / TRUE.seconds(done[5]) <= 2.0


def test_an_estimate_is_exact_where_the_machine_keeps_to_the_model() -> None:
    found = estimate(load(), answer())
    fit_s = 300 * TRUE.seconds(work([STEPS[5]]))
    assert found.fit_s == pytest.approx(fit_s, rel=0.02)
    evaluate_s = TRUE.seconds(work([[(128, 60), (128, 20)]], n_steps=0)) / 4
    valid_s = 3 * TRUE.seconds(work([[(50, 40)]], n_steps=0)) / 4
    assert found.evaluate_s == pytest.approx(evaluate_s, rel=0.02)
    saves_s = 0.5 * (3 + fit_s / 60)
    explained_s = forecasts.PASSES_OF_ERRORS * fit_s / (load().n_trained_rows * load().n_epochs)
    assert found.wall_s == pytest.approx(2 * 3.0 + fit_s + valid_s + saves_s + evaluate_s + explained_s, rel=0.02)
    packed_s = 300 * TRUE.seconds(work([STEPS[4]]))
    assert estimate(load(), answer(packs=True)).fit_s == pytest.approx(packed_s, rel=0.02)
    assert estimate(load(), answer(), clock="cpu_s").fit_s == pytest.approx(fit_s / 2, rel=0.02)


def test_the_steps_that_made_the_process_grow_count_only_where_there_are_few() -> None:
    steps = [measured(one, seconds=TRUE.seconds(work([one]))) for one in STEPS]
    slow = [replace(one, wall_s=2 * one.wall_s) if place in (1, 2) else one for place, one in enumerate(steps)]
    wanted = estimate(load(), answer()).fit_s
    assert estimate(load(), answer(steps=tuple(slow))).fit_s == pytest.approx(wanted, rel=0.05)
    few = estimate(load(), answer(steps=tuple(slow[:4]))).fit_s
    assert few is not None
    assert wanted is not None
    assert few > 1.1 * wanted


def test_memory_is_that_of_the_costliest_pass_or_on_the_line_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forecasts, "peak_resident_bytes", lambda: 0)
    monkeypatch.setattr(forecasts, "FRAGMENTATION", 1.0)
    assert estimate(load(), answer()).peak_memory_bytes == 900 + 7
    # 100 at (4, 20) and 300 at (4, 40): 100 a (4 x 20 x 276) more, and so on to the costliest, which was not run
    steps = (measured([(4, 20)] * 2, seconds=1, peak=100), measured([(4, 40)], seconds=1, peak=300))
    slope = 200 / (4 * 40 * 296 - 4 * 20 * 276)
    wanted = 300 + slope * (8 * 40 * 296 - 4 * 40 * 296)
    found = estimate(load(costliest=passes([(8, 40)])[0]), answer(steps=steps, peak_bytes=300)).peak_memory_bytes
    assert found == int(wanted) + 7
    monkeypatch.setattr(forecasts, "peak_resident_bytes", lambda: 5000)
    assert estimate(load(), answer()).peak_memory_bytes == 5000  # preparing the data took more than training will


# -- what is counted and picked ------------------------------------------------------------------------------------


def test_the_workload_is_that_of_every_step_of_every_epoch(tmp_path: Path, backbone: Path) -> None:
    values, data = prepared(tmp_path, backbone, fit__epochs=3, fit__batch_size=10)
    found, picked = workload(values, data)
    assert found.n_steps == 3 * 7  # 64 rows
    lengths = data.train.lengths
    plan = Plan(64, 10, values.seed)
    steps = []
    for epoch in range(3):
        for step in range(7):
            of_step = lengths[plan.rows(epoch, step)]
            groups = micro_batches(of_step, max_texts=10, pass_tokens=CPU_PASS_TOKENS)
            steps.append([Pass.of(of_step[group]) for group in groups])
    assert found.trained.tolist() == pytest.approx(workloads.work(steps).tolist())
    assert found.packed.tolist() == pytest.approx(workloads.work(steps, packed=True).tolist())
    valid = batches_by_length(data.valid.lengths, max_tokens=8192, max_texts=128)
    assert found.valid[1] == 3 * len(valid)
    assert found.evaluated[0] == 0
    assert found.costliest in [shape for step in steps for shape in step]
    assert all(rows.max() < 64 for step in picked.steps for rows in step)


def test_the_batches_of_evaluation_in_a_probe_differ_in_size(
    tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of batches of one size nobody can tell what a batch costs and what its tokens cost.
    values, data = prepared(tmp_path, backbone)
    monkeypatch.setattr("headrace.train.workload.SCORED_TOKENS", (30, 150, 150))
    _, picked = workload(values, data)
    n_tokens = [len(group) * int(data.valid.lengths_of(group).max()) for group in picked.groups]
    assert max(n_tokens) <= 150
    assert 2 * min(n_tokens) <= max(n_tokens)


def test_a_limit_of_steps_is_a_limit_of_the_work(tmp_path: Path, backbone: Path) -> None:
    values, data = prepared(tmp_path, backbone, trainer={"max_steps": 5})
    found, _ = workload(values, data)
    assert found.n_steps == found.trained[0] == 5


def test_many_steps_are_counted_by_some_that_stand_for_all(
    tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, data = prepared(tmp_path, backbone, fit__epochs=40)
    whole, _ = workload(values, data)
    monkeypatch.setattr("headrace.train.workload.MAX_COUNTED_STEPS", 200)
    some, _ = workload(values, data)
    assert some.n_steps == whole.n_steps == 640
    assert some.trained.tolist() == pytest.approx(whole.trained.tolist(), rel=0.03)


# -- the probe -----------------------------------------------------------------------------------------------------


def test_the_probe_takes_the_required_steps_and_then_what_it_has_time_for() -> None:
    n_tokens = [10, 20, 100, 200, 100, 60]
    clock = probe._Clock(n_tokens, budget_s=50.0)
    clock._begun = time.perf_counter()
    assert [clock.has_time_for(index) for index in range(N_REQUIRED)] == [True] * N_REQUIRED
    clock.measured = [measured([(1, n)], seconds=0.3 * n) for n in n_tokens[:N_REQUIRED]]
    # 200 tokens take 60 s: the costliest may, the same later on is too long, and 100 tokens are not
    assert [clock.has_time_for(index) for index in (3, 4, 5)] == [True, True, True]
    clock.n_tokens[4] = 200
    assert not clock.has_time_for(4)
    clock._begun -= 100.0
    assert [clock.has_time_for(index) for index in (3, 4, 5)] == [False, False, False]


def check_figures(found: Forecast) -> None:
    assert found.reason is None
    assert found.fit_s is not None
    assert found.fit_s > 0
    assert found.evaluate_s is not None
    assert found.evaluate_s > 0
    assert found.wall_s is not None
    assert found.wall_s > found.fit_s + found.evaluate_s
    assert found.peak_memory_bytes is not None
    assert found.peak_memory_bytes > 100 << 20  # torch alone is larger
    assert found.probe_s > 0
    assert set(found.as_dict()) == set(vars(found))


@pytest.mark.slow
def test_the_probe_gives_figures_and_leaves_random_state_and_folder_alone(
    tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, data = prepared(tmp_path, backbone)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    torch.manual_seed(20_240_517)  # a state that no forecast before this one has left
    states = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    found = forecast(values, data, budget_s=0.5, max_share=math.inf)
    check_figures(found)
    assert found.n_steps == 2 * 16
    assert random.getstate() == states[0]
    assert str(np.random.get_state()) == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "n_steps"),
    [
        ({"head": {"name": "native"}, "fit__sampler": "balanced", "fit__precision": "bf16"}, 32),
        ({"head": {"name": "logistic", "pool": "mean"}}, 0),
        ({"fit__sampler": "length_buckets", "fit__class_weights": "balanced"}, 32),
    ],
)
def test_the_probe_knows_all_heads_and_samplers(
    tmp_path: Path, backbone: Path, changes: dict[str, Any], n_steps: int
) -> None:
    values, data = prepared(tmp_path, backbone, **changes)
    found = forecast(values, data, budget_s=0.5, max_share=math.inf)
    check_figures(found)
    assert found.n_steps == n_steps
    assert (found.note is None) == (n_steps > 0)


def test_a_short_training_is_not_probed(tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values, data = prepared(tmp_path, backbone)
    monkeypatch.setattr(forecasts, "ask", lambda *a, **k: pytest.fail("a process was started"))
    found = forecast(values, data)
    assert found.fit_s is found.evaluate_s is found.wall_s is found.peak_memory_bytes is None
    assert found.n_steps == 32
    assert found.reason is not None
    assert "is short" in found.reason
    assert "32 steps" in found.reason


def test_the_memory_of_an_accelerator_is_told_where_there_is_one() -> None:
    found = Forecast(12.5, 1.0, 20.0, 900_000_000, None, 40, 3.0)
    assert memory_words(found.as_dict()) == "0.9 GB of memory"
    on_gpu = replace(found, peak_device_bytes=3_400_000_000)
    assert memory_words(on_gpu.as_dict()) == "0.9 GB of memory, 3.4 GB on the accelerator"


def test_several_processes_are_not_forecast(tmp_path: Path, backbone: Path) -> None:
    values, data = prepared(tmp_path, backbone, trainer={"devices": 2, "accelerator": "cpu"})
    found = forecast(values, data, max_share=math.inf)
    assert found.fit_s is None
    assert found.reason == "a run in several processes is not forecast"


@pytest.mark.slow
def test_a_probe_that_fails_gives_the_reason(tmp_path: Path, backbone: Path) -> None:
    values, data = prepared(tmp_path, backbone)
    other = values.model_copy(update={"backbone": values.backbone.model_copy(update={"name": str(tmp_path / "none")})})
    found = forecast(other, data, max_share=math.inf, packs=False)
    assert found.fit_s is None
    assert found.peak_memory_bytes is None
    assert found.reason is not None
    assert found.reason.startswith("the probe failed: ")
    assert "none" in found.reason


@pytest.mark.parametrize(
    ("returned", "stderr", "said"),
    [
        (-9, "", "the system killed the probe (signal 9), as it does when memory runs out"),
        (-11, "", "the probe was ended by signal 11"),
        (
            1,
            "Traceback\nRuntimeError: DefaultCPUAllocator: can't allocate memory: 9 bytes",
            "ran out of memory: Runtime",
        ),
        (1, "Traceback\nMemoryError", "ran out of memory: MemoryError"),
        (1, "", "the probe failed: exit code 1"),
        (0, "a warning", "the probe failed: a warning"),
    ],
)
def test_each_end_of_a_probe_is_told(
    tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch, returned: int, stderr: str, said: str
) -> None:
    values, data = prepared(tmp_path, backbone)
    done = subprocess.CompletedProcess([], returned, "", stderr)
    monkeypatch.setattr(probe.subprocess, "run", lambda *a, **k: done)
    found = forecast(values, data, max_share=math.inf)
    assert found.fit_s is None
    assert found.reason is not None
    assert said in found.reason


def test_what_does_not_learn_costs_no_way_back() -> None:
    whole = estimate(load(), answer(n_groups=8)).fit_s
    assert whole is not None
    for train, share in (("head", 1 / 3), ("1 group", (1 + 2 / 6) / 3), ("all", 1.0)):
        found = estimate(load(learning=((train, 2),)), answer(n_groups=8)).fit_s
        assert found == pytest.approx(share * whole)
    mixed = estimate(load(learning=(("head", 1), ("all", 3))), answer(n_groups=8)).fit_s
    assert mixed == pytest.approx((1 / 3 + 3) / 4 * whole)
