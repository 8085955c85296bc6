"""Compiled loops give torch's numbers, drop at the rate that was asked for, and leave nothing half done."""

from __future__ import annotations

import math
import platform
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from headrace import compiled
from headrace.compiled import ALL_KEPT, Levels, Seen, _threads
from headrace.train.fit import fit
from tiny import tiny_folder
from tiny_fits import recipe, rows, silent, stop_at, weights, write_csv

N = 400_000

ALWAYS = "test_they_are_there_where_numba_is_and_torch_stands_on_openmp"


@pytest.fixture(autouse=True)
def loops(request: pytest.FixtureRequest) -> None:
    if request.node.name != ALWAYS and not compiled.are_there():
        pytest.skip("no compiled loops here: no numba, or torch has no OpenMP")


def test_they_are_there_where_numba_is_and_torch_stands_on_openmp() -> None:
    pytest.importorskip("numba")
    if platform.system() != "Linux":
        pytest.skip("torch has another OpenMP here")
    assert compiled.are_there()


def test_a_process_with_other_defaults_has_them_too() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        assert compiled.are_there.__wrapped__()
    finally:
        torch.set_default_dtype(torch.float32)


def test_other_types_are_refused() -> None:
    for dtype in (torch.float16, torch.float64):
        with pytest.raises(TypeError, match="in one piece"):
            compiled.dropped(torch.ones(4, dtype=dtype), ALL_KEPT)
        assert not compiled.learn(dtype)


def test_what_learns_can_be_kept_from_them() -> None:
    assert compiled.learn(torch.float32)
    with compiled.learning(False):
        assert not compiled.learn(torch.float32)
    assert compiled.learn(torch.float32)


def levels(seed: int, *, rate: float = 0.5, start: int = 0) -> Levels:
    first, second = np.random.SeedSequence(seed).generate_state(2).tolist()
    return Levels(first, second, start, round(rate * (1 << 32)), 1 / (1 - rate))


def kept(n: int, given: Levels) -> np.ndarray:
    return compiled.dropped(torch.ones(n), given).numpy() != 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_numbers_are_dropped_at_the_rate_and_the_others_scaled(rate: float, dtype: torch.dtype) -> None:
    values = torch.randn(3, N // 3, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = compiled.dropped(values, levels(1, rate=rate))
    is_dropped = found == 0
    assert float(is_dropped.float().mean()) == pytest.approx(rate, abs=4 * (rate * (1 - rate) / N) ** 0.5 + 1e-4)
    assert torch.equal(found, torch.where(is_dropped, 0.0, (values.float() * (1 / (1 - rate))).to(dtype)).to(dtype))


def deviation(*masks: np.ndarray) -> float:
    """Return how far the joint counts of eight neighbours of each mask are from equal ones, in standard deviations."""
    cells = np.zeros(len(masks[0]) // 8, dtype=np.int64)
    n_bits = 8 // len(masks)
    for mask in masks:
        for bit in range(n_bits):
            cells = (cells << 1) | mask[bit : len(cells) * 8 : 8].astype(np.int64)
    counts = np.bincount(cells, minlength=1 << (n_bits * len(masks)))
    free = len(counts) - 1
    return float(((counts - counts.mean()) ** 2).sum() / counts.mean() - free) / (2 * free) ** 0.5


@pytest.mark.parametrize("width", [4, 5, 32, 255, 256, 4096])
def test_levels_are_independent_of_their_neighbours(width: int) -> None:
    """In a row and below each other, whatever the width."""
    mask = kept(N + width, levels(2))
    assert abs(deviation(mask[:N])) < 5
    assert abs(deviation(mask[:N], mask[width:])) < 5
    for every in (2, 3, 8, 64):
        assert abs(deviation(mask[::every])) < 5


@pytest.mark.parametrize(
    "other", [Levels(7 + (1 << 31), 7, 0, 1 << 31, 2.0), Levels(7, 8, 0, 1 << 31, 2.0), Levels(7, 7, N, 1 << 31, 2.0)]
)
def test_streams_of_near_seeds_are_independent(other: Levels) -> None:
    one, two = kept(N, Levels(7, 7, 0, 1 << 31, 2.0)), kept(N, other)
    assert abs(deviation(one, two)) < 5
    for moved in (1, 2, 16, 256):
        assert abs(deviation(one[moved:], two[:-moved])) < 5
        assert abs(deviation(two[moved:], one[:-moved])) < 5


def test_a_pattern_would_be_seen() -> None:
    one = kept(N, levels(3))
    assert deviation(one, one) > 100
    assert deviation(np.arange(N) % 2 == 0) > 100


def test_a_part_of_a_stream_is_the_same_wherever_it_is_asked_for() -> None:
    whole = kept(10_000, levels(4))
    assert np.array_equal(whole[1234:5678], kept(5678 - 1234, levels(4, start=1234)))


def pieces(
    dtype: torch.dtype, width: int = 45, n_heads: int = 2, lengths: tuple[int, ...] = (45, 3, 17, 1)
) -> tuple[Tensor, Tensor, Seen]:
    draw = torch.Generator().manual_seed(5)
    scores, above = (
        torch.randn(len(lengths) * n_heads, width, width, generator=draw).mul(4).to(dtype) for _ in range(2)
    )
    return scores, above, Seen(torch.tensor(lengths), n_heads * width, 0, None)


def expected(scores: Tensor, seen: Seen) -> Tensor:
    """Return the softmax over what is seen, 0 elsewhere."""
    width = scores.shape[-1]
    lengths = torch.full((len(scores),), width)
    if seen.lengths is not None:
        lengths = seen.lengths.repeat_interleave(seen.rows_a_text // width)
    places = torch.arange(width)
    here = places[None, :, None] < lengths[:, None, None]
    looks = here & (places[None, None, :] < lengths[:, None, None])
    if seen.window is not None:
        looks = looks & ((places[:, None] - places).abs() < seen.window)
    weights = torch.softmax(scores.double().masked_fill(~looks, -math.inf), dim=-1)
    return torch.where(looks, weights, 0.0)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_softmax_and_its_gradient_are_those_of_the_formula(
    dtype: torch.dtype, rate: float, ends: bool, window: int | None, threads: int
) -> None:
    scores, above, seen = pieces(dtype)
    seen = seen._replace(lengths=seen.lengths if ends else None, window=window)
    weights = expected(scores, seen)
    drop = levels(6, rate=rate) if rate else ALL_KEPT
    keeps = torch.from_numpy(kept(scores.numel(), drop)).view(scores.shape)
    dropped = torch.where(keeps, weights, 0.0)
    given = torch.where(keeps, above.double(), 0.0)
    gradient = weights * (given - (given * weights).sum(dim=-1, keepdim=True))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        if dtype == torch.float32:
            found, back = scores.clone(), above.clone()
            compiled.softmax_in_place_(found, drop, seen)
            again = scores.clone()
            compiled.softmax_in_place_(again, drop, seen, above=back)
            assert float((again - found).abs().max()) < 1e-7
            apart, steep = 3e-7, 1e-5
        else:
            made, found, again, back = scores.clone(), torch.empty_like(scores), torch.empty_like(scores), above.clone()
            compiled.softmax_(made, drop, seen, made=made, out=found)
            assert torch.equal(made.view(torch.int16) < 0, ~keeps & (weights > 0))
            assert float((made.abs() - weights).abs().max()) < 4e-3
            compiled.gradients_(back, made, dropped=again)
            assert torch.equal(again, found)
            apart, steep = 4e-3, 8e-2
    finally:
        torch.set_num_threads(before)
    assert float((found - dropped).abs().max()) < apart
    assert float((back - gradient).abs().max()) < steep


def test_a_piece_in_the_middle_of_its_group_looks_at_its_own_texts() -> None:
    scores, _, seen = pieces(torch.float32)
    whole, part = scores.clone(), scores[4:].clone()
    compiled.softmax_in_place_(whole, ALL_KEPT, seen)
    compiled.softmax_in_place_(part, ALL_KEPT, seen._replace(first_row=4 * scores.shape[-1]))
    assert torch.equal(whole[4:], part)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_is_nan_and_no_other(broken: float, dtype: torch.dtype) -> None:
    scores, _, seen = pieces(dtype)
    seen = seen._replace(lengths=None)
    scores[1, 2, 3] = broken
    found = torch.empty_like(scores)
    if dtype == torch.float32:
        found.copy_(scores)
        compiled.softmax_in_place_(found, ALL_KEPT, seen)
    else:
        compiled.softmax_(scores, ALL_KEPT, seen, made=scores, out=found)
    is_nan = found.isnan()
    assert bool(is_nan[1, 2].all())
    assert int(is_nan.sum()) == scores.shape[-1]


def test_scores_that_are_far_apart_are_none_or_one() -> None:
    scores = torch.tensor([[[0.0, -1e4, -200.0], [3e38, -3e38, 0.0], [-3e38, -3e38, -3e38]]])
    compiled.softmax_in_place_(scores, ALL_KEPT, Seen(None, 3, 0, None))
    assert torch.allclose(scores, torch.tensor([[[1.0, 0, 0], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3]]]), atol=1e-7)


@pytest.mark.parametrize(
    "broken",
    [
        lambda scores: scores.half(),
        lambda scores: scores.transpose(1, 2),
        lambda scores: scores[:1],
        lambda scores: scores.to("meta"),
    ],
    ids=["type", "strides", "size", "device"],
)
def test_memory_that_is_not_what_it_is_held_for_is_refused(broken: object) -> None:
    scores, above, seen = pieces(torch.float32)
    with pytest.raises(TypeError, match="in one piece"):
        compiled.softmax_in_place_(scores, ALL_KEPT, seen, above=broken(above))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("fault", "told"),
    [(ModuleNotFoundError("numba"), ""), (AttributeError("no such thing"), "AttributeError: no such thing")],
)
def test_a_compiler_that_fails_costs_time_and_no_more(
    fault: Exception, told: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(name: str) -> None:
        raise fault

    monkeypatch.setattr("importlib.import_module", fail)
    assert not compiled.are_there.__wrapped__()
    assert told in caplog.text
    assert bool(caplog.text) == bool(told)


def test_loops_whose_numbers_are_not_torchs_are_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiled, "dropped", lambda values, levels: values + 1e-3)
    assert not compiled.are_there.__wrapped__()
    assert "not torch's" in caplog.text


def test_without_torchs_openmp_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "_NAMES_ALL", "no_such_library.so")
    monkeypatch.setattr(_threads, "team", _threads.team.__wrapped__)
    assert not compiled.are_there.__wrapped__()
    with pytest.raises(RuntimeError, match="cannot be asked"):
        _threads.run(0)


def test_without_dropout_nothing_is_kept() -> None:
    scores, _, seen = pieces(torch.bfloat16)
    made, out = torch.empty_like(scores), torch.empty_like(scores)
    compiled.softmax_(scores, ALL_KEPT, seen, made=made, out=out)
    compiled.softmax_(scores, ALL_KEPT, seen, out=scores)
    assert torch.equal(scores, out)
    assert torch.equal(made, out)


def test_a_run_goes_on_with_or_without_them_as_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = recipe(write_csv(tmp_path / "train.csv", rows(40)), tiny_folder(tmp_path))
    own = compiled.are_there
    fit(settings, out=tmp_path / "with", echo=silent)
    monkeypatch.setattr(compiled, "are_there", lambda: False)
    fit(settings, out=tmp_path / "without", echo=silent)
    stop_at(3, settings, tmp_path / "run")
    monkeypatch.setattr(compiled, "are_there", own)
    fit(settings, out=tmp_path / "run", echo=silent)
    assert weights(tmp_path / "run") == weights(tmp_path / "without") != weights(tmp_path / "with")

    stop_at(3, settings, tmp_path / "other")
    said: list[str] = []
    monkeypatch.setattr(compiled, "are_there", lambda: False)
    fit(settings, out=tmp_path / "other", echo=said.append)
    assert any("not to the same bits" in line for line in said)
