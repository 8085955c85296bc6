"""What follows from unchanging rows is computed once, and anew when its file is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headrace.data.audit import Finding
from headrace.data.kept import kept_arrays, kept_findings


class Counted:
    def __init__(self, value: object) -> None:
        self.value = value
        self.n_calls = 0

    def __call__(self) -> object:
        self.n_calls += 1
        return self.value


ROWS = (np.arange(5), np.array([7, 9]))
FOUND = [Finding("warning", "empty_text", "2 rows are empty", 2, ("a.csv:3", "a.csv:9"), "fill them in")]


def test_arrays_are_computed_once(tmp_path: Path) -> None:
    compute = Counted(ROWS)
    first = kept_arrays(tmp_path, "splits", "content", "0.1 13", compute=compute)
    second = kept_arrays(tmp_path, "splits", "content", "0.1 13", compute=compute)
    assert compute.n_calls == 1
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_another_setting_is_another_result(tmp_path: Path) -> None:
    compute = Counted(ROWS)
    kept_arrays(tmp_path, "splits", "content", "0.1 13", compute=compute)
    kept_arrays(tmp_path, "splits", "content", "0.1 14", compute=compute)
    assert compute.n_calls == 2


def test_findings_come_back_as_they_were(tmp_path: Path) -> None:
    compute = Counted(FOUND)
    assert kept_findings(tmp_path, "content", compute=compute) == FOUND
    assert kept_findings(tmp_path, "content", compute=compute) == FOUND
    assert compute.n_calls == 1


def test_a_damaged_file_is_computed_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arrays, findings = Counted(ROWS), Counted(FOUND)
    kept_arrays(tmp_path, "splits", "content", compute=arrays)
    kept_findings(tmp_path, "content", compute=findings)
    for path in tmp_path.rglob("*.*"):
        path.write_bytes(path.read_bytes()[:20])
    kept_arrays(tmp_path, "splits", "content", compute=arrays)
    assert kept_findings(tmp_path, "content", compute=findings) == FOUND
    assert (arrays.n_calls, findings.n_calls) == (2, 2)
    assert caplog.text.count("is damaged") == 2
