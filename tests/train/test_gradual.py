"""Stages: what learns learns at its own rate, what is fixed stays bit-equal, and a cut run ends as an undisturbed one."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from headrace.data.examples import LabelSet
from headrace.errors import Interrupted, RecipeError
from headrace.head import HeadSettings
from headrace.model import load_classifier
from headrace.train.fit import fit
from headrace.train.stages import Stage, build_optimizer, freeze, n_learning, rate_factor, set_rates
from headrace.train.training import Training
from tiny import tiny_folder
from tiny_fits import recipe, rows, silent, stop_at, training, weights, write_csv

FAMILIES = ("bert", "distilbert", "roberta", "modernbert")
STAGES = [
    {"train": "head", "learning_rate": 2e-2},
    {"train": "1 group", "learning_rate": 1e-2, "layer_decay": 0.385},
    {"train": "all", "epochs": 2, "learning_rate": 1e-3, "layer_decay": 0.385},
]
N_STEPS = 32  # 32 training rows in batches of 4, four epochs


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def train_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "train.csv", rows())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, train_file: Path, backbone: Path) -> Path:
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    fit(recipe(train_file, backbone, fit__stages=STAGES), out=out, echo=silent)
    return out


def classifier(folder: Path) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return load_classifier(
            backbone=str(folder), head=HeadSettings(pool="mean"), labels=LabelSet(("bad", "good")), multi_label=False
        )


@pytest.mark.parametrize(("train", "n"), [("head", 1), ("1 group", 2), ("2 groups", 3), ("all", 4)])
def test_groups_are_counted_from_the_top_and_the_head_is_always_among_them(train: str, n: int) -> None:
    assert n_learning(train, 4) == n


def test_more_groups_than_there_are_is_refused_with_how_many_there_are() -> None:
    with pytest.raises(RecipeError, match="trains 4 groups of the backbone, which has 3"):
        n_learning("4 groups", 4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("train", ["head", "1 group", "2 groups", "all"])
def test_rates_are_those_of_a_hand_and_what_is_fixed_stays_bit_equal(family: str, train: str, tmp_path: Path) -> None:
    model = classifier(tiny_folder(tmp_path, family))
    groups = model.groups()  # type: ignore[operator]
    names = [name for name, _ in groups]
    assert names == ["embeddings", "layer 0", "layer 1", "head"]
    everything = [id(parameter) for _, parameters in groups for parameter in parameters]
    assert sorted(everything) == sorted(id(parameter) for parameter in model.parameters())

    fixed = freeze(model, groups, train)
    assert fixed == names[: {"head": 3, "1 group": 2, "2 groups": 1, "all": 0}[train]]
    stage = Stage(train=train, learning_rate=1e-2, layer_decay=1 / 2.6, weight_decay=0.1, schedule="constant", warmup=0)
    optimizer = build_optimizer(groups, stage)
    set_rates(optimizer, stage, 0, n_steps=1, n_warmup=0)
    by_parameter = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    depth = {"head": 0, "layer 1": 1, "layer 0": 2, "embeddings": 3}
    for name, parameters in groups:
        for parameter in parameters:
            expected = None if name in fixed else pytest.approx(1e-2 / 2.6 ** depth[name])
            assert by_parameter.get(id(parameter)) == expected

    before = {name: [p.detach().clone() for p in parameters] for name, parameters in groups}
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameters in groups:
        for old, new in zip(before[name], parameters, strict=True):
            assert torch.equal(old, new) == (name in fixed)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_fixed_computes_as_in_evaluation_and_nothing_else_does(family: str, tmp_path: Path) -> None:
    model = classifier(tiny_folder(tmp_path, family))
    freeze(model, model.groups(), "1 group")  # type: ignore[operator]
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters:
            assert module.training == any(parameter.requires_grad for parameter in parameters)
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout):
            above = model.get_submodule(name.rpartition(".")[0])
            assert module.training == any(parameter.requires_grad for parameter in above.parameters())
    freeze(model, model.groups(), "all")  # type: ignore[operator]
    assert all(module.training for module in model.modules())


def test_a_slanted_triangle_is_the_papers() -> None:
    """Howard & Ruder 2018, equation 3, with T = 100, cut_frac = 0.1, ratio = 32."""
    for step in range(100):
        share = step / 10 if step < 10 else 1 - (step - 10) / (10 * (1 / 0.1 - 1))
        expected = (1 + share * 31) / 32
        assert rate_factor("slanted_triangular", step, n_steps=100, n_warmup=10) == pytest.approx(expected)


def test_a_staged_run_tells_its_stages_and_leaves_the_fixed_groups_alone(
    tmp_path: Path, train_file: Path, backbone: Path, undisturbed: Path
) -> None:
    result = training(undisturbed)
    assert [record["stage"] for record in result["history"]] == [1, 2, 3, 3]
    assert [record["epoch"] for record in result["history"]] == [1, 2, 3, 4]
    assert result["begun"] == [[0, 0], [1, 8], [2, 16]]
    assert result["total"] == N_STEPS

    said: list[str] = []
    run = fit(recipe(train_file, backbone, fit__stages=STAGES[:1]), out=tmp_path / "head", echo=said.append)
    found = load_file(run.bundle / "model.safetensors")
    start = load_file(backbone / "model.safetensors")
    kept = {name.removeprefix("backbone.model."): tensor for name, tensor in found.items() if "backbone" in name}
    assert len(kept) > 20
    for name, tensor in kept.items():
        assert torch.equal(tensor, start[name]), name
    lines: list[str] = []
    fit(recipe(train_file, backbone, fit__stages=STAGES[:2]), out=tmp_path / "two", echo=lines.append)
    assert "stage 1 of 2: the head alone learns" in lines
    assert "stage 2 of 2: head, layer 1 learn" in lines
    assert any(line.startswith("stage 2  epoch 2  train loss") for line in lines)


def test_the_report_shows_the_rate_of_each_group_in_each_stage(undisturbed: Path) -> None:
    import json

    curve = json.loads((undisturbed / "report.json").read_text("utf-8"))["training_curve"]
    place = {step: index for index, step in enumerate(curve["steps"])}
    assert curve["rates"]["layer 1"][place[8]] == 0
    assert curve["rates"]["layer 1"][place[9]] == pytest.approx(0.385 * curve["rates"]["head"][place[9]])
    assert curve["rates"]["embeddings"][place[16]] == 0
    assert curve["rates"]["embeddings"][place[17]] == pytest.approx(0.385**3 * curve["rates"]["head"][place[17]])


@pytest.mark.parametrize("step", [3, 8, *(pytest.param(step, marks=pytest.mark.slow) for step in (9, 16, 17, 24, 31))])
def test_a_run_cut_inside_or_between_stages_ends_bit_equal(
    step: int, tmp_path: Path, train_file: Path, backbone: Path, undisturbed: Path
) -> None:
    settings = recipe(train_file, backbone, fit__stages=STAGES)
    stop_at(step, settings, tmp_path / "run")
    fit(settings, out=tmp_path / "run", echo=silent)
    assert weights(tmp_path / "run") == weights(undisturbed)
    mine, theirs = training(tmp_path / "run"), training(undisturbed)
    assert mine["begun"] == theirs["begun"]
    assert mine["curve"] == theirs["curve"]


def test_a_process_that_dies_between_two_stages_loses_nothing(
    tmp_path: Path, train_file: Path, backbone: Path, undisturbed: Path
) -> None:
    settings = recipe(train_file, backbone, fit__stages=STAGES)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyError):
        original = Training._run_stage

        def dying(self: Any, phase: Any, keeper: Any) -> Any:
            if keeper.progress.stage == 1:
                raise KeyError("the power went")
            return original(self, phase, keeper)

        patch.setattr(Training, "_run_stage", dying)
        fit(settings, out=tmp_path / "run", echo=silent)
    said: list[str] = []
    fit(settings, out=tmp_path / "run", echo=said.append)
    assert any(line.startswith("resumed at step 8 of 32") for line in said)
    assert weights(tmp_path / "run") == weights(undisturbed)


def test_early_stopping_in_a_stage_goes_on_with_the_next(tmp_path: Path, train_file: Path, backbone: Path) -> None:
    first = {
        "train": "head",
        "epochs": 9,
        "learning_rate": 1e-12,
        "early_stopping": {"patience": 1, "monitor": "loss", "min_delta": 1},
    }
    stages = [first, {"train": "all", "epochs": 2, "learning_rate": 1e-3}]
    settings = recipe(train_file, backbone, fit__stages=stages)
    fit(settings, out=tmp_path / "run", echo=silent)
    result = training(tmp_path / "run")
    assert [record["stage"] for record in result["history"]] == [1, 1, 2, 2]
    assert result["begun"] == [[0, 0], [2, 16]]
    assert fit(settings, out=tmp_path / "run", echo=silent).was_finished


def test_a_stage_has_its_own_curve_and_loss(tmp_path: Path, train_file: Path, backbone: Path) -> None:
    stages = [
        {"train": "head", "schedule": "one_cycle", "warmup": 0.25, "label_smoothing": 0.3},
        {"train": "all", "schedule": "constant", "warmup": 0},
    ]
    seen: list[tuple[int, float]] = []
    from headrace.train.session import Session

    original = Session.prepare_stage

    def watching(self: Any, phase: Any) -> None:
        original(self, phase)
        seen.append((phase.epochs, self.module.label_smoothing))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "prepare_stage", watching)
        fit(recipe(train_file, backbone, fit__stages=stages), out=tmp_path / "run", echo=silent)
    assert seen == [(1, 0.3), (1, 0.0)] * 2  # each is tried before the first begins, so that a fault is told at once
    rates = training(tmp_path / "run")["curve"]["rate"]
    assert rates[0] == pytest.approx(1e-3 / 25)
    assert max(rates[:8]) == pytest.approx(1e-3)
    assert rates[7] < 1e-4
    assert rates[8:] == pytest.approx([1e-3] * 8)


def test_a_signal_between_two_stages_ends_nothing_whatever_the_limits(
    tmp_path: Path, train_file: Path, backbone: Path, undisturbed: Path
) -> None:
    from headrace.train import resume

    settings = recipe(train_file, backbone, fit__stages=STAGES, trainer={"max_steps": 1000})
    kept = resume.Keeper.finish_epoch

    def signalled(self: Any, *args: Any) -> None:
        kept(self, *args)
        self.signals.received = signal.SIGINT

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted, match="step 8 "):
        patch.setattr(resume.Keeper, "finish_epoch", signalled)
        fit(settings, out=tmp_path / "run", echo=silent)
    assert not (tmp_path / "run" / "training.json").is_file()
    fit(settings, out=tmp_path / "run", echo=silent)
    assert training(tmp_path / "run")["total"] == N_STEPS
    assert weights(tmp_path / "run") == weights(undisturbed)


@pytest.mark.parametrize("late", [{"train": "99 groups"}, {"train": "all", "class_weights": {"wrong": 2.0}}])
def test_a_fault_of_a_later_stage_is_told_before_the_first(
    late: dict[str, Any], tmp_path: Path, train_file: Path, backbone: Path
) -> None:
    settings = recipe(train_file, backbone, fit__stages=[{"train": "head"}, late], trainer={"limit_train_batches": 2})
    with pytest.raises(RecipeError):
        fit(settings, out=tmp_path / "run", echo=silent)
    assert not list((tmp_path / "run" / "checkpoints").glob("*.ckpt"))


@pytest.mark.slow
def test_two_processes_go_through_the_stages_together(tmp_path: Path, train_file: Path, backbone: Path) -> None:
    quiet = {"backbone": {"name": str(backbone), "dropout": 0.0}, "head": {"pool": "mean", "dropout": 0.0}}
    settings = recipe(train_file, backbone, fit__stages=[{**stage, "learning_rate": 1e-4} for stage in STAGES[1:]])
    settings |= quiet  # each process drops others
    run = fit(settings, out=tmp_path / "one", echo=silent)
    both = fit({**settings, "trainer": {"devices": 2, "accelerator": "cpu"}}, out=tmp_path / "two", echo=silent)
    one, two = (load_file(found.bundle / "model.safetensors") for found in (run, both))
    assert training(tmp_path / "two")["begun"] == training(tmp_path / "one")["begun"]
    for name, tensor in one.items():
        if "key.bias" not in name:  # its gradient is zero but for rounding
            assert torch.allclose(tensor, two[name], atol=1e-5), name
