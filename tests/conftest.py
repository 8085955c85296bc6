"""Shared by all tests: a cache of their own, one thread (the models are tiny), and the small data they train on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

# Before torch is imported: waiting threads that spin would fight the tests' own subprocesses for two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import hypothesis
import pytest

from warm_process import WarmProcess

# How long an example takes says something of the machine's other work, not of the code.
hypothesis.settings.register_profile("headrace", deadline=None)
hypothesis.settings.load_profile("headrace")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["HEADRACE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _unsynced() -> Iterator[None]:
    """Let in-process writes end in the page cache: power is not cut in a test, and a fit waits for the disk 65 times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headrace.files.os.fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _warm_proofs(_own_cache: None) -> Iterator[object]:
    """Let a warm process prove the bundles; yields what starts a process for each."""
    from headrace.bundle import proof

    started, warm = proof._run, WarmProcess()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proof, "_run", warm.run)
        yield started
    warm.close()


@pytest.fixture(autouse=True)
def _fresh_process(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, _warm_proofs: Callable[[str], tuple[int, str]]
) -> None:
    if request.node.get_closest_marker("fresh_process"):
        monkeypatch.setattr("headrace.bundle.proof._run", _warm_proofs)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; without it the test is skipped and says so."""
    folder = os.environ.get("HEADRACE_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real data are read from the folder in $HEADRACE_DATA, which is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def samples() -> Path:
    """The shipped samples."""
    import headrace

    return Path(headrace.__file__).parent / "samples"
