"""What frozen groups give is computed once, and training goes as if it were computed each time."""

from __future__ import annotations

import errno
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from headrace.backbones.transformer import Transformer
from headrace.errors import Interrupted
from headrace.train import frozen, frozen_store
from headrace.train.fit import fit
from headrace.train.frozen import Need, needs, pays, served
from headrace.train.stages import Stage
from tiny import tiny_folder
from tiny_fits import recipe, rows, silent, stop_at, training, weights, write_csv

# 32 training and 8 validation rows in batches of 4: 8 steps an epoch.
STAGES: list[dict[str, Any]] = [
    {"train": "head", "epochs": 2, "learning_rate": 1e-2},
    {"train": "1 group", "epochs": 1, "learning_rate": 1e-3, "layer_decay": 0.385},
    {"train": "all", "epochs": 1, "learning_rate": 1e-4, "layer_decay": 0.385},
]
FP32 = "fp32"


@pytest.fixture(scope="module")
def train_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "train.csv", rows())


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("backbone"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "frozen"


def entries(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.glob("*"))


def near(one: Path, two: Path, tolerance: float = 1e-5) -> None:
    mine, theirs = (load_file(run / "bundle" / "model.safetensors") for run in (one, two))
    assert sorted(mine) == sorted(theirs)
    for name, tensor in mine.items():
        if "key.bias" not in name and "k_lin.bias" not in name:  # its gradient is zero but for rounding
            assert torch.allclose(tensor, theirs[name], atol=tolerance), (
                name,
                float((tensor - theirs[name]).abs().max()),
            )


# -- what is kept ---------------------------------------------------------------------------------------------------


def wanted(*train: str, precisions: tuple[str, ...] | None = None) -> list[Need | None]:
    stages = [Stage(train=one) for one in train]
    return needs(stages, precisions or (FP32,) * len(train), n_groups=8, n_split=5)  # six layers


def test_a_stage_needs_what_its_lowest_learning_layer_gets() -> None:
    found = wanted("head", "1 group", "2 groups", "5 groups", "6 groups", "7 groups", "all")
    assert found == [Need(None, FP32), Need(5, FP32), Need(4, FP32), Need(1, FP32), None, None, None]


def test_without_layers_to_start_from_only_the_heads_input_is_kept() -> None:
    stages = [Stage(train="head"), Stage(train="1 group")]
    assert needs(stages, [FP32, FP32], n_groups=8, n_split=0) == [Need(None, FP32), None]


def test_a_pass_serves_later_stages_until_one_moves_what_they_keep_fixed() -> None:
    found = wanted("head", "1 group", "2 groups", "all", "1 group")
    learning = [1, 2, 3, 8, 2]
    assert served(found, learning, 0) == [0, 1, 2]
    assert served(found, learning, 1) == [1, 2]
    assert served(found, learning, 3) == []
    assert served(found, learning, 4) == [4]
    back = wanted("2 groups", "1 group", "2 groups")
    assert served(back, [3, 2, 3], 0) == [0, 2]
    mixed = wanted("head", "1 group", precisions=(FP32, "bf16"))
    assert served(mixed, [1, 2], 0) == [0]


def test_one_epoch_alone_is_not_worth_a_pass() -> None:
    def told(*stages: Stage) -> list[bool]:
        found = wanted(*(stage.train for stage in stages))
        learning = [{"head": 1, "1 group": 2, "all": 8}[stage.train] for stage in stages]
        return [pays(stages, found, learning, place) for place in range(len(stages))]

    assert told(Stage("head", 1)) == [False]
    assert told(Stage("head", 2)) == [True]
    assert told(Stage("head", 1), Stage("1 group", 1)) == [True, True]
    assert told(Stage("head", 1), Stage("all", 1), Stage("1 group", 1)) == [False, False, False]
    assert told(Stage("all", 9)) == [False]


# -- a run ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "head"),
    [
        ("bert", {"pool": "mean"}),
        pytest.param("bert", {"name": "ulmfit", "pool": "concat", "hidden": 16}, marks=pytest.mark.slow),
        pytest.param("modernbert", {"pool": "cls", "hidden": 8}, marks=pytest.mark.slow),
        pytest.param("deberta-v2", {"pool": "max"}, marks=pytest.mark.slow),
    ],
    ids=["bert-mean", "bert-ulmfit", "modernbert-cls", "deberta-max"],
)
def test_a_run_ends_with_the_weights_that_it_has_without_kept_outputs(
    family: str, head: dict[str, Any], tmp_path: Path, train_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(train_file, tiny_folder(tmp_path, family), fit__stages=STAGES, head=head)
    lines: list[str] = []
    kept = fit(settings, out=tmp_path / "kept", echo=lines.append)
    assert len(entries(cache)) == 2
    assert sum(line.startswith("frozen outputs of 40 texts: ") for line in lines) == 2
    assert "frozen outputs of 40 texts: read from the cache" in lines

    shutil.rmtree(cache)
    monkeypatch.setattr(frozen_store, "MAX_BYTES", 0)
    said: list[str] = []
    without = fit(settings, out=tmp_path / "without", echo=said.append)
    assert entries(cache) == []
    assert any(line.startswith("frozen outputs are not kept: 40 texts would take") for line in said)
    # kept outputs are computed padded, the others end to end: a batch norm makes the most of that rounding
    has_batch_norm = head.get("name") == "ulmfit"
    near(kept.folder, without.folder, tolerance=1e-4 if has_batch_norm else 1e-5)
    for mine, theirs in zip(training(kept.folder)["history"], training(without.folder)["history"], strict=True):
        assert mine["valid"] == pytest.approx(theirs["valid"], abs=1e-3 if has_batch_norm else 3e-4)


def counting(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often whole passes and upper parts were computed."""
    counts = {"_from_below": 0, "upper": 0}

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(Transformer, name)

        def call(self: Any, *args: Any) -> Any:
            counts[name] += 1
            return original(self, *args)

        return call

    for name in counts:
        monkeypatch.setattr(Transformer, name, counted(name))
    return counts


def test_the_frozen_part_is_computed_once_however_many_epochs_there_are(
    tmp_path: Path, train_file: Path, backbone: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def n_passes(epochs: int, out: str) -> int:
        shutil.rmtree(cache, ignore_errors=True)
        counts = counting(monkeypatch)
        stages = [{"train": "head", "epochs": epochs}]
        fit(recipe(train_file, backbone, fit__stages=stages), out=tmp_path / out, echo=silent)
        return counts["_from_below"]

    two = n_passes(2, "two")
    assert n_passes(5, "five") == two
    assert n_passes(1, "one") > 8  # one epoch: each of its steps


def test_the_top_layer_learns_from_what_is_kept_below_it(
    tmp_path: Path, train_file: Path, backbone: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = counting(monkeypatch)
    stages = [{"train": "1 group", "epochs": 3}]
    fit(recipe(train_file, backbone, fit__stages=stages), out=tmp_path / "run", echo=silent)
    # 24 steps and 3 validations of one batch start midway, and three that try whether they can
    assert 27 <= counts["upper"] <= 31


def test_another_seed_reads_what_the_first_run_kept(
    tmp_path: Path, train_file: Path, backbone: Path, cache: Path
) -> None:
    stages = [{"train": "head", "epochs": 2}]
    data = {"train": str(train_file), "valid": str(train_file), "max_length": 32}
    fit(recipe(train_file, backbone, fit__stages=stages, data=data), out=tmp_path / "one", echo=silent)
    kept = {path: path.read_bytes() for path in cache.rglob("*.bin")}
    lines: list[str] = []
    fit(recipe(train_file, backbone, fit__stages=stages, data=data, seed=7), out=tmp_path / "two", echo=lines.append)
    assert "frozen outputs of 80 texts: read from the cache" in lines
    assert {path: path.read_bytes() for path in cache.rglob("*.bin")} == kept


@pytest.mark.parametrize(
    "changes",
    [
        {"fit__stages": [{"train": "head"}]},
        {"fit__stages": [{"train": "all", "epochs": 2}]},
        {"fit__stages": [{"train": "2 groups", "epochs": 2}]},  # the embeddings alone are fixed
        {"fit__stages": [{"train": "head", "epochs": 2}], "head": {"name": "native"}},
        {"fit__stages": [{"train": "head", "epochs": 2}], "trainer": {"limit_train_batches": 2}},
    ],
    ids=["one epoch", "all", "embeddings", "native", "limited"],
)
def test_nothing_is_written_where_nothing_is_gained(
    changes: dict[str, Any], tmp_path: Path, train_file: Path, backbone: Path, cache: Path
) -> None:
    lines: list[str] = []
    fit(recipe(train_file, backbone, **changes), out=tmp_path / "run", echo=lines.append)
    assert not any(line.startswith("frozen outputs") for line in lines)
    assert entries(cache) == []


def test_in_bf16_token_states_take_half_the_bytes(
    tmp_path: Path, train_file: Path, backbone: Path, cache: Path
) -> None:
    sizes = {}
    for precision in ("fp32", "bf16"):
        shutil.rmtree(cache, ignore_errors=True)
        stages = [{"train": "1 group", "epochs": 2, "precision": precision}]
        fit(recipe(train_file, backbone, fit__stages=stages), out=tmp_path / precision, echo=silent)
        sizes[precision] = sum(path.stat().st_size for path in cache.rglob("*.bin")) - 40 * 4  # and a checksum a text
    assert sizes["fp32"] == 2 * sizes["bf16"] > 0


# -- when something comes between -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step", [3, pytest.param(8, marks=pytest.mark.slow), 16, pytest.param(19, marks=pytest.mark.slow)]
)
def test_a_cut_run_ends_bit_equal_with_what_was_kept_and_without(
    step: int, tmp_path: Path, train_file: Path, backbone: Path, cache: Path
) -> None:
    settings = recipe(train_file, backbone, fit__stages=STAGES)
    fit(settings, out=tmp_path / "undisturbed", echo=silent)
    first = {path.relative_to(cache): path.read_bytes() for path in cache.rglob("*.bin")}
    assert len(first) == 4
    for removed in (False, True):
        out = tmp_path / f"removed {removed}"
        stop_at(step, settings, out)
        if removed:
            shutil.rmtree(cache)
        fit(settings, out=out, echo=silent)
        assert weights(out) == weights(tmp_path / "undisturbed")
        mine, theirs = training(out), training(tmp_path / "undisturbed")
        assert mine["curve"] == theirs["curve"]
        assert [e["valid"] for e in mine["history"]] == [e["valid"] for e in theirs["history"]]
    again = {path.relative_to(cache): path.read_bytes() for path in cache.rglob("*.bin")}
    assert again == {path: content for path, content in first.items() if path in again}
    assert again


def test_a_run_that_went_without_goes_on_without(
    tmp_path: Path, train_file: Path, backbone: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(train_file, backbone, fit__stages=STAGES[:1])
    with monkeypatch.context() as patch:
        patch.setattr(frozen_store, "MAX_BYTES", 0)
        fit(settings, out=tmp_path / "undisturbed", echo=silent)
        stop_at(3, settings, tmp_path / "run")
    fit(settings, out=tmp_path / "run", echo=silent)  # there is room now
    assert entries(cache) == []
    assert weights(tmp_path / "run") == weights(tmp_path / "undisturbed")


def test_a_run_that_has_to_go_on_without_says_so(
    tmp_path: Path, train_file: Path, backbone: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(train_file, backbone, fit__stages=STAGES[:1])
    stop_at(3, settings, tmp_path / "run")
    shutil.rmtree(cache)
    monkeypatch.setattr(frozen_store, "MAX_BYTES", 0)
    lines: list[str] = []
    fit(settings, out=tmp_path / "run", echo=lines.append)
    assert any("goes on without them" in line for line in lines)


@pytest.mark.slow
def test_a_signal_during_the_pass_ends_it_and_leaves_nothing_half_written(
    tmp_path: Path, train_file: Path, backbone: Path, cache: Path
) -> None:
    settings = recipe(train_file, backbone, fit__stages=STAGES)
    write = frozen.RowWriter.write
    sent: list[int] = []

    def interrupting(self: Any, *args: Any) -> None:
        if not sent:
            sent.append(1)
            signal.raise_signal(signal.SIGINT)
        write(self, *args)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted, match="step 0 by signal 2"):
        patch.setattr(frozen.RowWriter, "write", interrupting)
        fit(settings, out=tmp_path / "run", echo=silent)
    assert entries(cache) == []
    fit(settings, out=tmp_path / "run", echo=silent)
    fit(settings, out=tmp_path / "undisturbed", echo=silent)
    assert weights(tmp_path / "run") == weights(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_full_disk_costs_time_and_nothing_else(
    tmp_path: Path, train_file: Path, backbone: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, *args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(frozen.RowWriter, "write", full)
    lines: list[str] = []
    run = fit(recipe(train_file, backbone, fit__stages=STAGES), out=tmp_path / "run", echo=lines.append)
    assert any(line.startswith("frozen outputs are not kept: cannot write") for line in lines)
    assert entries(cache) == []
    monkeypatch.undo()
    near(run.folder, fit(recipe(train_file, backbone, fit__stages=STAGES), out=tmp_path / "two", echo=silent).folder)


def test_of_two_forms_the_one_that_fits_is_kept(
    tmp_path: Path, train_file: Path, backbone: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_store, "MAX_BYTES", 40 * (32 + 1) * 4)  # the head's vectors, width 32, and no states
    lines: list[str] = []
    fit(recipe(train_file, backbone, fit__stages=STAGES), out=tmp_path / "run", echo=lines.append)
    assert len(entries(cache)) == 1
    assert "frozen outputs of 40 texts: 0 MB on disk" in lines
    assert sum("are not kept" in line for line in lines) == 1


def test_long_passes_tell_how_far_they_are(
    tmp_path: Path, train_file: Path, backbone: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "LINE_EVERY_S", 0.0)
    lines: list[str] = []
    fit(recipe(train_file, backbone, fit__stages=STAGES[:1]), out=tmp_path / "run", echo=lines.append)
    assert "frozen outputs: 40 of 40 texts" in lines


@pytest.mark.slow
def test_several_processes_compute_each_time_and_say_so(tmp_path: Path, train_file: Path, backbone: Path) -> None:
    settings = recipe(train_file, backbone, fit__stages=STAGES[:1], trainer={"devices": 2, "accelerator": "cpu"})
    fit(settings, out=tmp_path / "run", echo=silent)
    assert not (tmp_path / "run" / "checkpoints" / frozen.RECORD).exists()
