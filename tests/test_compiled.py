"""Compiled loops give torch's numbers, drop at the rate that was asked for, and leave nothing half done."""

from __future__ import annotations

import errno
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from headrace import compiled
from headrace.compiled import ALL_KEPT, Levels, Texts, _kept, _sizes, _threads
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


def test_the_trial_hangs_on_no_autocast_around_it() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert compiled.are_there.__wrapped__()


def in_a_process_of_its_own(code: str, **environment: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="is about processors of that kind")
@pytest.mark.parametrize(
    ("features", "told"), [("+avx,+avx2,+fma,+sse4.2", "True True False"), ("+sse4.2", "True False False")]
)
def test_an_older_processor_has_what_it_can_do(features: str, told: str, tmp_path: Path) -> None:
    code = (
        "import pathlib, torch; from headrace import compiled as c; "
        f"c._kept._places = lambda: iter([(pathlib.Path({str(tmp_path)!r}), False)]); "
        "print(c.are_there(), c.attends(torch.float32, 32), c.attends(torch.bfloat16, 32))"
    )
    older = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features}
    assert in_a_process_of_its_own(code, **older) == told


def test_levels_of_other_rates_and_of_too_few_texts_are_refused() -> None:
    given, texts = packed(torch.float32, (5, 2)), laid((5, 2), 3, 0.1)
    for wrong in (texts.levels[:1], [texts.levels[0], texts.levels[1]._replace(lowest=7)]):
        with pytest.raises(ValueError, match="2 texts need as many levels"):
            by_loops(given, Texts(texts.lengths, wrong))


def test_a_loop_that_does_not_come_through_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "team", lambda: lambda *args: None)
    with pytest.raises(RuntimeError, match="0 of 6 pieces"):
        by_loops(packed(torch.float32, (5, 2)), laid((5, 2), 3, 0.1))


@pytest.mark.parametrize("name", ["attention_bytes", "gradients_bytes"])
@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 32), (torch.bfloat16, 70)])
def test_a_loop_with_too_little_room_leaves_before_it_begins(
    name: str, dtype: torch.dtype, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(dtype)
    own = getattr(_sizes, name)
    monkeypatch.setattr(_sizes, name, lambda *args: own(*args) - _sizes.LINE)
    with pytest.raises(RuntimeError, match="too little room"):
        by_loops(packed(dtype, (50, 2), width=width), laid((50, 2), 3, 0.1))


@pytest.mark.parametrize("window", [None, 1, 23])
@pytest.mark.parametrize("lengths", [(1,), (31, 8), (65, 64, 33), (300, 7)], ids=str)
@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 7), (torch.float32, 64), (torch.bfloat16, 70)])
def test_a_loop_touches_nothing_behind_its_room(
    dtype: torch.dtype, width: int, lengths: tuple[int, ...], window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(dtype)
    whole: list[Tensor] = []

    def guarded(n_bytes: int) -> Tensor:
        whole.append(torch.full((n_bytes + 8192,), 0x5A, dtype=torch.uint8))
        return whole[-1][4096 : 4096 + n_bytes]

    monkeypatch.setattr(_threads, "_room", guarded)
    by_loops(packed(dtype, lengths, width=width), laid(lengths, 3, 0.1), window)
    n_used = [int((one[4096:-4096] != 0x5A).sum()) for one in whole]
    assert len(whole) >= 2
    assert n_used[0] > 0
    assert n_used[-1] > 0
    assert all(bool((one[:4096] == 0x5A).all()) and bool((one[-4096:] == 0x5A).all()) for one in whole)


def test_more_arguments_than_a_loop_takes_are_refused() -> None:
    with pytest.raises(ValueError, match="has no 40 arguments"):
        _threads.run(_kept.loops().addresses["dropout"], 1, *range(40))


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two places to keep code in, where there is none yet; the second is one that others could reach."""
    found = [tmp_path / "first", tmp_path / "second"]
    monkeypatch.setattr(_kept, "_places", lambda: zip(found, (False, True), strict=True))
    return found


def compilations(monkeypatch: pytest.MonkeyPatch) -> list[_kept.Code]:
    """Let the compiler give the code that is there already; return what it gave."""
    _kept.loops()
    name = f"loops-{_kept._key()}.bin"
    own = next(filter(None, (_kept._read(place / name, is_shared=False) for place, _ in _kept._places())), None)
    assert own is not None
    given: list[_kept.Code] = []

    class Compiler:
        @staticmethod
        def compiled() -> _kept.Code:
            given.append(own)
            return own

    monkeypatch.setattr(_kept.importlib, "import_module", lambda name: Compiler)
    return given


@pytest.fixture
def given(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[_kept.Code]:
    found = compilations(monkeypatch)
    request.getfixturevalue("places")
    return found


def test_code_is_compiled_once_and_read_from_then_on(given: list[_kept.Code], places: list[Path]) -> None:
    first = _kept.loops.__wrapped__()
    (file,) = places[0].iterdir()
    again = _kept.loops.__wrapped__()
    assert len(given) == 1
    assert set(again.addresses) == {"attention", "gradients", "dropout"}
    assert again[1:] == first[1:]
    assert not places[1].exists()
    assert _kept._read(file, is_shared=True) == given[0]


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda kept: kept[:-1],
        lambda kept: b"",
        lambda kept: b"\xff\n[1]\n",
        lambda kept: kept[:-1] + b"?",
        lambda kept: kept.replace(b"attention", b"attentiom", 1),
        lambda kept: kept.replace(b'"has_16_bits": ', b'"has_16_bits":1', 1),
    ],
    ids=["cut", "empty", "other", "changed", "another name", "another flag"],
)
def test_code_that_is_not_what_was_written_is_never_run(
    spoilt: Callable[[bytes], bytes], given: list[_kept.Code], places: list[Path]
) -> None:
    _kept.loops.__wrapped__()
    (file,) = places[0].iterdir()
    whole = file.read_bytes()
    file.write_bytes(spoilt(whole))
    _kept.loops.__wrapped__()
    assert len(given) == 2
    assert file.read_bytes() == whole


def test_where_the_first_place_is_closed_code_is_kept_in_the_second(
    given: list[_kept.Code], places: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    places[0].write_text("a file, no folder")
    for _ in range(2):
        _kept.loops.__wrapped__()
    assert len(given) == 1
    assert len(list(places[1].iterdir())) == 1
    assert not caplog.text


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_place_that_cannot_be_written_is_passed_over(
    number: int, given: list[_kept.Code], places: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is done there, looking and clearing up too."""
    own: dict[str, Any] = {name: getattr(Path, name) for name in ("mkdir", "unlink")}

    def failing(name: str) -> Any:
        def call(path: Path, *args: Any, **options: Any) -> Any:
            if places[0] == path or places[0] in path.parents:
                raise OSError(number, os.strerror(number), str(path))
            return own[name](path, *args, **options)

        return call

    for name in own:
        monkeypatch.setattr(Path, name, failing(name))
    for _ in range(2):
        _kept.loops.__wrapped__()
    assert len(given) == 1
    assert len(list(places[1].iterdir())) == 1


def test_code_that_others_could_have_written_is_not_run(given: list[_kept.Code], places: list[Path]) -> None:
    places[0].write_text("a file, no folder")
    _kept.loops.__wrapped__()
    (file,) = places[1].iterdir()
    assert file.stat().st_mode & 0o022 == 0
    assert _kept._read(file, is_shared=True)
    file.chmod(0o664)
    assert _kept._read(file, is_shared=True) is None
    assert _kept._read(file, is_shared=False)


def test_settings_in_a_file_are_in_no_name_and_their_code_is_not_kept(
    given: list[_kept.Code], places: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".numba_config.yaml").write_text("opt: 1\n")
    assert _kept.loops.__wrapped__().addresses
    assert not any(place.exists() for place in places)


def test_without_a_home_the_first_place_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(_kept, "cache_folder", homeless)
    assert [is_shared for _, is_shared in _kept._places()] == [False]


@pytest.mark.parametrize(
    ("features", "found"), [("+avx2,+fma", False), ("+avx512bf16,+avx2", True), ("-avx512bf16", False)]
)
def test_whether_a_processor_may_have_16_bit_products_needs_no_compiler(
    features: str, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CPU_FEATURES", features)
    assert _kept.may_have_16_bits.__wrapped__() is found
    monkeypatch.delenv("NUMBA_CPU_FEATURES")
    assert _kept.may_have_16_bits.__wrapped__() is _kept.loops().has_16_bits


def test_where_there_are_no_16_bit_products_nothing_is_compiled_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise AssertionError

    monkeypatch.setattr(_kept, "may_have_16_bits", lambda: False)
    monkeypatch.setattr(compiled, "are_there", fail)
    assert not compiled.attends(torch.bfloat16, 32)


def test_code_that_can_be_kept_nowhere_is_used_all_the_same(
    given: list[_kept.Code], places: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    for place in places:
        place.write_text("a file, no folder")
    assert _kept.loops.__wrapped__().addresses["attention"]
    assert len(given) == 1
    assert "HEADRACE_CACHE" in caplog.text


def test_another_setting_of_the_compiler_is_another_code(monkeypatch: pytest.MonkeyPatch) -> None:
    own = _kept._key()
    monkeypatch.setenv("NUMBA_OPT", "1")
    assert _kept._key() != own


def test_a_process_that_finds_the_code_needs_no_compiler() -> None:
    code = "import sys; from headrace import compiled; print(compiled.are_there(), 'numba' in sys.modules)"
    assert in_a_process_of_its_own(code) == "True False"


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


SCALE = 0.2


def packed(
    dtype: torch.dtype,
    lengths: tuple[int, ...] = (70, 41, 33, 32, 8, 7, 1),
    n_heads: int = 3,
    width: int = 32,
    behind: int = 0,
) -> list[Tensor]:
    """Return queries, keys, values and gradients of texts, and of some tokens of padding behind them."""
    draw = torch.Generator().manual_seed(5)
    shape = sum(lengths) + behind, n_heads, width
    return [torch.randn(shape, generator=draw).to(dtype) for _ in range(4)]


def laid(lengths: tuple[int, ...], n_heads: int, rate: float) -> Texts:
    """Return the texts with levels of one stream, a text's behind the other's."""
    starts = np.cumsum([0, *(n_heads * n * n for n in lengths)])
    given = [levels(6, rate=rate, start=int(start)) for start in starts[:-1]] if rate else []
    return Texts(torch.tensor(lengths, dtype=torch.int64), given)


def by_formula(given: list[Tensor], texts: Texts, window: int | None) -> tuple[Tensor, ...]:
    """Return in float64 the attention and the gradients, through masks that `compiled.dropped` makes of the same levels."""
    query, key, value, above = (one.double().requires_grad_() for one in given)
    parts, start = [], 0
    for number, n in enumerate(texts.lengths.tolist()):
        here = [one[start : start + n].transpose(0, 1) for one in (query, key, value)]
        places = torch.arange(n)
        far = (places[:, None] - places).abs() >= (window or n)
        weights = torch.softmax((here[0] @ here[1].mT * SCALE).masked_fill(far, -math.inf), dim=-1)
        if texts.levels:
            weights = weights * compiled.dropped(torch.ones(weights.shape), texts.levels[number]).double()
        parts.append((weights @ here[2]).transpose(0, 1))
        start += n
    output = torch.cat([*parts, torch.zeros_like(query[start:])])
    return output.detach(), *torch.autograd.grad(output, (query, key, value), above)


def by_loops(given: list[Tensor], texts: Texts, window: int | None = None) -> tuple[Tensor, ...]:
    query, key, value, above = given
    found = compiled.attention(query, key, value, texts, scale=SCALE, window=window)
    back = compiled.attention_gradients(query, key, value, texts, found, above, scale=SCALE, window=window)
    return found.output, *back


def needs(dtype: torch.dtype) -> None:
    if not compiled.attends(dtype, 32):
        pytest.skip("this processor has no products of bfloat16")


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("window", [None, 1, 23])
@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize(("n_heads", "width"), [(3, 32), (2, 64), (2, 16), (1, 70)])
@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_attention_and_its_gradients_are_those_of_the_formula(
    dtype: torch.dtype, apart: float, n_heads: int, width: int, rate: float, window: int | None, threads: int
) -> None:
    needs(dtype)
    lengths = (130, 70, 64, 41, 33, 32, 8, 7, 1)
    given, texts = packed(dtype, lengths, n_heads, width, behind=5), laid(lengths, n_heads, rate)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = by_loops(given, texts, window)
    finally:
        torch.set_num_threads(before)
    for mine, theirs in zip(found, by_formula(given, texts, window), strict=True):
        assert mine.dtype == dtype
        assert float((mine.double() - theirs).abs().max()) <= apart * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_texts_attention_hangs_on_no_other_text(dtype: torch.dtype) -> None:
    """Nor on what lies behind the texts, nor on how many threads there are, to the bit."""
    needs(dtype)
    lengths = (70, 41, 33)
    given, texts = packed(dtype, lengths, behind=3), laid(lengths, 3, 0.2)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = by_loops(given, texts)
    finally:
        torch.set_num_threads(before)
    for one, other in zip(whole, by_loops(given, texts), strict=True):
        assert torch.equal(one, other)
    alone = by_loops([one[70:111].clone() for one in given], Texts(texts.lengths[1:2], texts.levels[1:2]))
    for one, other in zip(whole, alone, strict=True):
        assert torch.equal(one[70:111], other)
        assert not bool(one[144:].any())


def test_rows_of_one_larger_tensor_are_read_where_they_are() -> None:
    lengths = (33, 20)
    given, texts = packed(torch.float32, lengths), laid(lengths, 3, 0.0)
    joined = torch.cat([one.flatten(1) for one in given[:3]], dim=1)
    apart = [part.view(-1, 3, 32) for part in joined.split(96, dim=1)]
    turned = [one.transpose(0, 1).contiguous().transpose(0, 1) for one in given[:3]]
    for views in (apart, turned):
        for one, other in zip(by_loops([*views, given[3]], texts), by_loops(given, texts), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_query_that_is_not_finite_has_no_finite_answer_and_no_other_has_none(
    broken: float, dtype: torch.dtype
) -> None:
    needs(dtype)
    lengths = (40, 9)
    given, texts = packed(dtype, lengths), laid(lengths, 3, 0.0)
    given[0][2, 1, 3] = broken
    output, d_query, d_key, d_value = by_loops(given, texts)
    is_nan = output.isnan()
    assert bool(is_nan[2, 1].all())
    assert int(is_nan.sum()) == output.shape[2]
    assert bool(d_query[2, 1].isnan().all())
    assert bool(d_key[:40, 1].isnan().any())
    assert bool(d_value[:40, 1].isnan().all())
    assert bool(torch.isfinite(d_value[40:]).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_that_are_far_apart_are_none_or_one(dtype: torch.dtype) -> None:
    needs(dtype)
    query, key, value, above = packed(dtype, (3,), 1)
    key.zero_()
    key[:, 0, 0] = torch.tensor([1e4, 0.0, -1e4])
    query.zero_()
    query[:, 0, 0] = torch.tensor([1e4, -1e4, 0.0])
    output, d_query, d_key, d_value = by_loops([query, key, value, above], laid((3,), 1, 0.0))
    expected = torch.stack([value[0, 0], value[2, 0], value[:, 0].float().mean(dim=0).to(dtype)])
    assert torch.allclose(output[:, 0].float(), expected.float(), atol=1e-2 if dtype == torch.bfloat16 else 1e-6)
    assert all(bool(torch.isfinite(one).all()) for one in (d_query, d_key, d_value))


def test_weights_are_dropped_at_the_rate() -> None:
    """Values that are rows of the unit matrix give the weights themselves."""
    lengths, n_heads, rate = (32,) * 40, 4, 0.1
    query, key, value, above = packed(torch.float32, lengths, n_heads)
    value.copy_(torch.eye(32).repeat(40, 1)[:, None].expand(-1, n_heads, -1))
    output, *_ = by_loops([query, key, value, above], laid(lengths, n_heads, rate))
    share, n = float((output == 0).float().mean()), output.numel()
    assert share == pytest.approx(rate, abs=4 * (rate * (1 - rate) / n) ** 0.5)


@pytest.mark.parametrize(
    "broken",
    [
        lambda rows: rows.half(),
        lambda rows: rows[:1],
        lambda rows: rows.to("meta"),
        lambda rows: rows.double(),
    ],
    ids=["type", "size", "device", "other type"],
)
@pytest.mark.parametrize("place", [1, 2, 3])
def test_memory_that_is_not_what_it_is_held_for_is_refused(broken: object, place: int) -> None:
    given = packed(torch.float32, (5, 2))
    given[place] = broken(given[place])  # type: ignore[operator]
    with pytest.raises(TypeError, match="in one piece got"):
        by_loops(given, laid((5, 2), 3, 0.0))


def test_texts_that_are_no_part_of_the_tokens_are_refused() -> None:
    for lengths, told in (((5, 3), "no parts of 7"), ((5, 0), "no texts"), ((), "no texts")):
        with pytest.raises(ValueError, match=told):
            by_loops(packed(torch.float32, (5, 2)), laid(lengths, 3, 0.0))


def test_heads_of_an_odd_width_are_left_to_torch_in_16_bits() -> None:
    assert compiled.attends(torch.float32, 7)
    assert not compiled.attends(torch.bfloat16, 7)
    assert not compiled.attends(torch.float16, 32)
    with pytest.raises(TypeError, match="bfloat16 heads 7 wide"):
        by_loops(packed(torch.bfloat16, (5,), width=7), laid((5,), 3, 0.0))


def test_a_processor_without_16_bit_products_has_loops_for_float32_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    own = _kept.loops()
    monkeypatch.setattr(_kept, "loops", lambda: own._replace(has_16_bits=False))
    assert compiled.are_there.__wrapped__()
    assert compiled.attends(torch.float32, 32)
    assert not compiled.attends(torch.bfloat16, 32)


@pytest.mark.parametrize(
    ("fault", "told"),
    [(ModuleNotFoundError("numba"), ""), (AttributeError("no such thing"), "AttributeError: no such thing")],
)
def test_a_compiler_that_fails_costs_time_and_no_more(
    fault: Exception, told: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise fault

    monkeypatch.setattr(_kept, "loops", fail)
    assert not compiled.are_there.__wrapped__()
    assert told in caplog.text
    assert bool(caplog.text) == bool(told)


def beside(name: str) -> object:
    """Return one of the functions, whose first answer is a bit beside the point."""
    own = getattr(compiled, name)

    def wrong(*args: object, **options: object) -> object:
        found = own(*args, **options)
        (found if isinstance(found, Tensor) else found[0]).add_(1e-3)
        return found

    return wrong


@pytest.mark.parametrize("name", ["dropped", "attention", "attention_gradients"])
def test_loops_whose_numbers_are_not_torchs_are_not_used(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiled, name, beside(name))
    assert not compiled.are_there.__wrapped__()
    assert "not torch's" in caplog.text


def test_without_torchs_openmp_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "_NAMES_ALL", "no_such_library.so")
    monkeypatch.setattr(_threads, "team", _threads.team.__wrapped__)
    assert not compiled.are_there.__wrapped__()
    with pytest.raises(RuntimeError, match="cannot be asked"):
        _threads.run(0, 1)


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
