"""Float32 products stay float32, whichever library multiplies; a run keeps the library that it began with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from headrace import matmul
from headrace.train import training as trainings
from headrace.train.fit import fit
from tiny import tiny_folder
from tiny_fits import recipe, rows, silent, stop_at, training, weights, write_csv


@pytest.fixture(autouse=True)
def measured_anew() -> Iterator[None]:
    matmul.fastest_route.cache_clear()
    yield
    matmul.fastest_route.cache_clear()


def products(monkeypatch: pytest.MonkeyPatch, *, error: float, seconds: dict[str, float]) -> None:
    """Let oneDNN's product have an error, and each library take so long."""
    state = {"route": matmul.DEFAULT, "now": 0.0}
    kept, product, kept_products = matmul.routed, matmul._product, matmul._products

    def routed(route: str):
        state["route"] = route
        return kept(matmul.DEFAULT)

    def timed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        state["now"] += seconds[state["route"]]
        return product(a, b)

    def inexact(a: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
        found = kept_products(a, b)
        return [*found[:-1], found[-1] * (1 + error)] if a.dtype == torch.float32 else found

    monkeypatch.setattr(matmul, "routed", routed)
    monkeypatch.setattr(matmul, "_product", timed)
    monkeypatch.setattr(matmul, "_products", inexact)
    monkeypatch.setattr(matmul.time, "perf_counter", lambda: state["now"])


@pytest.mark.parametrize(
    ("error", "seconds", "route"),
    [
        (0.0, 0.5, matmul.ONEDNN),
        (0.0, 0.95, matmul.DEFAULT),  # not worth it
        (0.0, 2.0, matmul.DEFAULT),
        (3e-3, 0.1, matmul.DEFAULT),  # as with AMX: fast, and not float32
    ],
)
def test_the_other_library_must_be_faster_and_as_exact(
    error: float, seconds: float, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    products(monkeypatch, error=error, seconds={matmul.DEFAULT: 1.0, matmul.ONEDNN: seconds})
    assert matmul.fastest_route() == route


def test_the_setting_is_as_before_outside_the_block() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    with pytest.raises(ZeroDivisionError), matmul.routed(matmul.ONEDNN):
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
        raise ZeroDivisionError
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    torch.get_float32_matmul_precision()  # raises where the setting is still another


@pytest.mark.parametrize("step", [3, 8])  # in an epoch, and between its last step and its validation
def test_a_run_goes_on_with_the_library_that_it_began_with(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(write_csv(tmp_path / "train.csv", rows(40)), tiny_folder(tmp_path))
    used: list[str] = []
    validated: list[str] = []
    kept = trainings.routed
    validate = lightning.Trainer.validate

    def validating(self: lightning.Trainer, *args: Any, **settings: Any) -> Any:
        validated.append(torch.backends.mkldnn.matmul.fp32_precision)
        return validate(self, *args, **settings)

    monkeypatch.setattr(lightning.Trainer, "validate", validating)

    def routed(route: str):
        used.append(route)
        return kept(route)

    monkeypatch.setattr(trainings, "routed", routed)
    monkeypatch.setattr(trainings, "fastest_route", lambda: matmul.ONEDNN)
    fit(settings, out=tmp_path / "whole", echo=silent)
    assert training(tmp_path / "whole")["history"][0]["step"] == 8
    stop_at(step, settings, tmp_path / "run")
    monkeypatch.setattr(trainings, "fastest_route", lambda: matmul.DEFAULT)
    fit(settings, out=tmp_path / "run", echo=silent)
    assert used == [matmul.ONEDNN] * 3
    assert validated == (["bf16"] if step == 8 else [])
    assert training(tmp_path / "run")["route"] == matmul.ONEDNN
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_products_with_one_weight_are_the_usual_ones(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    weight, given, added = (torch.randn(*shape, generator=draw).to(dtype) for shape in ((40, 24), (3, 24), (3, 40)))
    product = matmul.ProductWith(weight)
    tolerance = {"rtol": 1e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(product(given), given @ weight.t(), **tolerance)
    torch.testing.assert_close(product.added(given, added), added + given @ weight.t(), **tolerance)
    # that of a transposed view, and the same bits again
    back = matmul.ProductWith(weight.t())
    torch.testing.assert_close(back(added), added @ weight, **tolerance)
    assert torch.equal(back(added), back(added))


def test_only_16_bits_on_a_cpu_are_laid_out_and_only_where_torch_can(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow, wide = torch.zeros(4, 4, dtype=torch.bfloat16), torch.zeros(4, 4)
    for can in (True, False):
        monkeypatch.setattr(matmul, "lays_out", lambda can=can: can)
        monkeypatch.setattr(matmul, "lay_out", lambda weight: weight)
        assert [matmul.ProductWith(weight)._laid_out for weight in (narrow, wide)] == [can, False]
