"""A prediction that was cut goes on: what was scored is not scored again, and what is of others is not taken."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import apply
from headrace.apply import predictions
from headrace.bundle import Bundle
from headrace.cli import run
from headrace.errors import RecipeError
from headrace.kept_scores import KeptScores, remove_windows
from headrace.predict import CUT, EMPTY, SURROGATE, UNKNOWN, device_of
from tiny_bundle import csv_file, tiny_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(predictions, "ROWS_KEPT", 4)


def failing_after(monkeypatch: pytest.MonkeyPatch, n_windows: int, error: BaseException) -> list[int]:
    """Let the bundle score so many windows, then fail; return the list of the sizes of those that it scored."""
    real = Bundle.scores_and_flags
    sizes: list[int] = []

    def scored(self: Bundle, texts: Any, **compute: Any) -> Any:
        if len(sizes) == n_windows:
            raise error
        sizes.append(len(texts))
        return real(self, texts, **compute)

    monkeypatch.setattr(Bundle, "scores_and_flags", scored)
    return sizes


def cut(folder: Path | Bundle, source: Path, out: Path, n_windows: int) -> None:
    """Interrupt a prediction after so many windows."""
    with pytest.MonkeyPatch.context() as patch:
        failing_after(patch, n_windows, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            apply.predict_file(folder, source, out)


def whole(folder: Path, source: Path, out: Path) -> bytes:
    apply.predict_file(folder, source, out)
    return out.read_bytes()


def test_what_was_scored_before_an_interruption_is_not_scored_again(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = csv_file(tmp_path / "a.csv", 18)
    expected = whole(folder, source, tmp_path / "undisturbed.csv")
    cut(folder, source, tmp_path / "p.csv", 3)
    assert not (tmp_path / "p.csv").exists()
    assert len(list(apply.partial_folder(tmp_path / "p.csv").glob("*.npz"))) == 3
    sizes = failing_after(monkeypatch, 99, KeyboardInterrupt())
    done = apply.predict_file(folder, source, tmp_path / "p.csv")
    assert sizes == [4, 2]
    assert (done.n_kept, done.n_predicted) == (12, 18)
    assert (tmp_path / "p.csv").read_bytes() == expected
    assert not apply.partial_folder(tmp_path / "p.csv").exists()


@pytest.mark.parametrize("other", ["texts", "bundle"])
def test_kept_scores_of_others_are_not_taken(
    other: str, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = csv_file(tmp_path / "a.csv", 12), tmp_path / "p.csv"
    cut(folder, source, out, 2)
    if other == "texts":
        source = csv_file(tmp_path / "a.csv", 11)
    else:
        folder = tiny_bundle(tmp_path / "other", labels=("yes", "no"))
    expected = whole(folder, source, tmp_path / "undisturbed.csv")
    sizes = failing_after(monkeypatch, 99, KeyboardInterrupt())
    assert apply.predict_file(folder, source, out).n_kept == 0
    assert sum(sizes) == (11 if other == "texts" else 12)
    assert out.read_bytes() == expected
    assert not apply.partial_folder(out).exists()


def test_another_threshold_takes_the_scores_that_were_kept(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tags", task="multi_label", labels=("x", "y"))
    source = csv_file(tmp_path / "a.csv", 12)
    cut(bundle, source, tmp_path / "p.jsonl", 2)
    assert apply.predict_file(bundle, source, tmp_path / "p.jsonl", threshold=0.0).n_kept == 8
    text = (tmp_path / "p.jsonl").read_text("utf-8")
    assert text.count('"labels": ["x", "y"]') == 12


def test_scores_and_flags_come_back_as_they_were(tmp_path: Path) -> None:
    kept = KeptScores(tmp_path / "kept", {"a": 1})
    scores = np.array([[0.1, 0.9], [1.0, 0.0], [0.5, 0.5]], dtype=np.float32)
    flags = [(EMPTY, UNKNOWN, CUT, SURROGATE), (), (CUT,)]
    kept.write(7, scores, flags)
    again = KeptScores(tmp_path / "kept", {"a": 1})
    found = again.read(7, 3)
    assert found is not None
    np.testing.assert_array_equal(found[0], scores)
    assert found[1] == flags
    assert again.read(7, 4) is None
    assert again.read(8, 3) is None
    assert KeptScores(tmp_path / "kept", {"a": 2}).read(7, 3) is None


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 nonsense", None], ids=["empty", "nonsense", "half"])
def test_a_damaged_window_is_scored_anew(tmp_path: Path, damage: bytes | None) -> None:
    kept = KeptScores(tmp_path / "kept", {"a": 1})
    kept.write(0, np.zeros((3, 2), dtype=np.float32), [(), (), ()])
    path = next((tmp_path / "kept").glob("*.npz"))
    path.write_bytes(path.read_bytes()[:-40] if damage is None else damage)
    assert kept.read(0, 3) is None


def test_no_fallen_bit_ends_a_prediction_or_changes_a_score(tmp_path: Path) -> None:
    kept = KeptScores(tmp_path / "kept", {"a": 1})
    scores = np.array([[0.25, 0.75]], dtype=np.float32)
    kept.write(0, scores, [(CUT,)])
    path = next((tmp_path / "kept").glob("*.npz"))
    whole_file = path.read_bytes()
    n_damaged = 0
    for place in range(0, len(whole_file) * 8, 3):
        changed = bytearray(whole_file)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        found = kept.read(0, 1)
        n_damaged += found is None
        assert found is None or (np.array_equal(found[0], scores) and found[1] == [(CUT,)])
    assert n_damaged > len(whole_file)


def test_windows_of_another_key_are_not_lost_before_the_end(tmp_path: Path) -> None:
    first, second = (KeptScores(tmp_path / "kept", {"precision": name}) for name in ("fp32", "bf16"))
    first.write(0, np.zeros((1, 2), dtype=np.float32), [()])
    second.write(0, np.ones((1, 2), dtype=np.float32), [()])
    found = first.read(0, 1)
    assert found is not None
    assert not found[0].any()
    remove_windows(second.folder)
    assert not (tmp_path / "kept").exists()
    remove_windows(second.folder)


def test_a_mistyped_precision_loses_nothing(tmp_path: Path, folder: Path) -> None:
    source, out = csv_file(tmp_path / "a.csv", 18), tmp_path / "p.csv"
    cut(folder, source, out, 3)
    with pytest.raises(RecipeError, match="there is no precision 'fp16'"):
        apply.predict_file(folder, source, out, precision="fp16")
    assert apply.predict_file(folder, source, out).n_kept == 12


def test_a_bundle_whose_folder_is_gone_predicts_and_one_written_anew_keeps_its_own(tmp_path: Path) -> None:
    place = tiny_bundle(tmp_path / "bundle")
    loaded = Bundle.load(place)
    other = tiny_bundle(tmp_path / "other", labels=("yes", "no"))
    shutil.rmtree(place)
    source, out = csv_file(tmp_path / "a.csv", 12), tmp_path / "p.csv"
    cut(loaded, source, out, 2)
    shutil.copytree(other, place)
    assert apply.predict_file(place, source, out).n_kept == 0


def test_what_somebody_else_has_put_there_stays(tmp_path: Path, folder: Path) -> None:
    theirs = tmp_path / "p.csv.partial" / "notes.npz"
    theirs.parent.mkdir()
    theirs.write_text("mine")
    apply.predict_file(folder, csv_file(tmp_path / "a.csv", 9), tmp_path / "p.csv")
    assert [path.name for path in theirs.parent.iterdir()] == ["notes.npz"]
    assert theirs.read_text() == "mine"


def test_what_a_killed_write_has_left_is_no_window_and_goes_at_the_end(tmp_path: Path) -> None:
    kept = KeptScores(tmp_path / "kept", {"a": 1})
    kept.write(0, np.zeros((1, 2), dtype=np.float32), [()])
    path = next((tmp_path / "kept").glob("*.npz"))
    path.rename(path.with_name(f".tmp-1-00-{path.name}"))
    assert kept.read(0, 1) is None
    remove_windows(kept.folder)
    assert not (tmp_path / "kept").exists()


def test_what_cannot_be_removed_fails_no_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept = KeptScores(tmp_path / "kept", {"a": 1})
    kept.write(0, np.zeros((1, 2), dtype=np.float32), [()])
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: (_ for _ in ()).throw(PermissionError("no")))
    remove_windows(kept.folder)
    assert "is left over: no" in caplog.text


def test_a_short_file_and_a_bundle_in_memory_leave_no_folder(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []
    monkeypatch.setattr(predictions, "KeptScores", lambda path, key: seen.append(path))
    apply.predict_file(folder, csv_file(tmp_path / "a.csv", 4), tmp_path / "p.csv")
    loaded = Bundle.load(folder)
    loaded.identity = None
    apply.predict_file(loaded, csv_file(tmp_path / "b.csv", 9), tmp_path / "p.csv")
    assert seen == []


def test_a_short_file_removes_what_a_long_one_has_left_at_the_same_place(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "p.csv"
    cut(folder, csv_file(tmp_path / "a.csv", 12), out, 2)
    assert apply.partial_folder(out).is_dir()
    assert apply.predict_file(folder, csv_file(tmp_path / "a.csv", 3), out).n_kept == 0
    assert not apply.partial_folder(out).exists()


def test_the_command_says_that_it_goes_on(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = str(csv_file(tmp_path / "a.csv", 18)), str(tmp_path / "p.csv")
    with monkeypatch.context() as patch:
        failing_after(patch, 2, KeyboardInterrupt())
        assert run(["predict", str(folder), source, "-o", out]) == 130
    assert f"what was scored is kept in {out}.partial: the same command goes on there" in capsys.readouterr().err
    assert run(["predict", str(folder), source, "-o", out]) == 0
    assert "8 of them were scored by a call that did not end" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.slow
@pytest.mark.fresh_process
def test_a_prediction_that_was_killed_goes_on(tmp_path: Path, folder: Path) -> None:
    source, out = csv_file(tmp_path / "a.csv", 60), tmp_path / "p.csv"
    program = (
        "import sys, time\n"
        "from headrace import apply\n"
        "from headrace.bundle import Bundle\n"
        "apply.predictions.ROWS_KEPT = 4\n"
        "real = Bundle.scores_and_flags\n"
        "def slowly(*given, **compute):\n"
        "    time.sleep(float(sys.argv[4]))\n"
        "    return real(*given, **compute)\n"
        "Bundle.scores_and_flags = slowly\n"
        "print(apply.predict_file(*sys.argv[1:4]).n_kept)\n"
    )
    command = [sys.executable, "-c", program, str(folder), str(source), str(out)]
    environment = {**os.environ, "HEADRACE_CACHE": str(tmp_path / "cache")}
    running = subprocess.Popen([*command, "0.2"], env=environment)
    deadline = time.monotonic() + 120
    # a window that is still being written begins with a dot
    while len(list(apply.partial_folder(out).glob("[!.]*.npz"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not out.exists()
    done = subprocess.run([*command, "0"], env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert 12 <= int(done.stdout) < 60
    assert out.read_bytes() == whole(folder, source, tmp_path / "undisturbed.csv")


def test_a_device_that_is_not_there_is_one_clear_error(tmp_path: Path, folder: Path) -> None:
    assert device_of("cpu").type == "cpu"
    assert device_of("auto").type in ("cpu", "cuda", "mps", "xpu")
    for name in ("fpu", "cuda:999", "meta", "hpu"):
        with pytest.raises(RecipeError, match=f"the device '{name}' cannot be used") as caught:
            apply.predict_file(folder, csv_file(tmp_path / "a.csv", 4), tmp_path / "p.csv", device=name)
        assert caught.value.where == "device"
        assert "\n" not in caught.value.what


def test_bf16_moves_the_scores_a_little_and_is_obeyed(tmp_path: Path, folder: Path) -> None:
    source = csv_file(tmp_path / "a.csv", 9)
    scores = {}
    for precision in ("fp32", "bf16"):
        found, _ = apply.predict_rows(folder, source, precision=precision, device="cpu")
        scores[precision] = np.array([list(prediction.scores.values()) for _, prediction in found])
    assert not np.array_equal(scores["fp32"], scores["bf16"])
    np.testing.assert_allclose(scores["fp32"], scores["bf16"], atol=0.05)
    with pytest.raises(RecipeError, match="there is no precision 'fp8'"):
        apply.predict_rows(folder, source, precision="fp8")
