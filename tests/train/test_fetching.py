"""Data in a published archive: a bar or lines while it is fetched, and what a recipe without its hash ends in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace import cli
from headrace.check import check
from headrace.errors import DataError
from headrace.recipe import load_recipe
from headrace.train import fetching
from headrace.train import fit as fit_module
from headrace.train.fit import data_plan, fit
from headrace.train.prepare import prepare
from loopback import Site, sha, tar_of
from tiny import tiny_folder
from tiny_fits import recipe, rows, silent
from tiny_language import language_recipe

NAME = "aclFilms_v1.tar.gz"
FILMS = {f"aclFilms/train/{row['label']}/{n}_7.txt": row["text"].encode() for n, row in enumerate(rows(60))}
ARCHIVE = tar_of(FILMS)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("backbone"))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server of the archive, and an empty cache."""
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    site = Site()
    site.files[f"/{NAME}"] = ARCHIVE
    yield site
    site.server.shutdown()
    site.server.server_close()


def archived(site: Site, backbone: Path, **changes: Any) -> dict[str, Any]:
    inside = {"data__url": f"{site.url}/{NAME}", "data__sha256": sha(ARCHIVE), "fit__epochs": 1}
    return recipe(Path("aclFilms/train"), backbone, **inside, **changes)


def test_a_fit_shows_a_bar_while_its_archive_is_fetched_and_none_the_next_time(
    site: Site, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetching, "shows_bar", lambda: True)
    fit(archived(site, backbone), out=tmp_path / "a", echo=silent)
    shown = capsys.readouterr().err
    assert f"fetching {NAME}: 100%" in shown
    assert f"{len(ARCHIVE) / 1000:.2f}k/" in shown
    fit(archived(site, backbone, seed=1), out=tmp_path / "b", echo=silent)
    assert "fetching" not in capsys.readouterr().err
    assert len(site.requests) == 1


def test_without_a_terminal_lines_tell_how_much_is_fetched(
    site: Site, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fit_module, "TOLD_EVERY_S", 0.0)
    monkeypatch.setattr(fetching, "shows_bar", lambda: False)
    lines: list[str] = []
    fit(archived(site, backbone), out=tmp_path / "run", echo=lines.append)
    assert lines[0] == f"fetching {NAME}, bytes: {len(ARCHIVE):,} of {len(ARCHIVE):,}"
    assert "fetching" not in capsys.readouterr().err


def test_a_check_tells_it_too(
    site: Site, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fit_module, "TOLD_EVERY_S", 0.0)
    monkeypatch.setattr(fetching, "shows_bar", lambda: False)
    (tmp_path / "recipe.yaml").write_text(load_recipe(archived(site, backbone)).to_yaml(), "utf-8")
    cli.run(["check", str(tmp_path / "recipe.yaml"), "--no-forecast"])
    assert f"fetching {NAME}, bytes: {len(ARCHIVE):,} of" in capsys.readouterr().err


def test_the_texts_of_a_language_model_are_fetched_with_a_bar(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetching, "shows_bar", lambda: True)
    inside = {"data__url": f"{site.url}/{NAME}", "data__sha256": sha(ARCHIVE)}
    check(language_recipe(Path("aclFilms/train"), **inside))
    assert f"fetching {NAME}: 100%" in capsys.readouterr().err


def test_where_the_size_is_not_known_the_bytes_are_told_alone(
    site: Site, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "shows_bar", lambda: False)
    site.tells_size = False
    told: list[tuple[str, int, int]] = []
    values = load_recipe(archived(site, backbone)).values
    prepare(data_plan(values), progress=lambda *what: told.append(what))
    assert told[0] == (f"fetching {NAME}, bytes", len(ARCHIVE), 0)
    lines: list[str] = []
    monkeypatch.setattr(fit_module, "TOLD_EVERY_S", 0.0)
    fit_module.telling(lines.append)(*told[0])
    assert lines == [f"fetching {NAME}, bytes: {len(ARCHIVE):,}"]


def test_a_bar_goes_back_where_the_server_begins_anew(
    site: Site, backbone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetching, "shows_bar", lambda: True)
    monkeypatch.setattr("headrace.data.archive.WAIT_S", 0.01)
    site.ranges, site.break_after = False, [len(ARCHIVE) // 2]
    prepare(data_plan(load_recipe(archived(site, backbone)).values))
    assert f"fetching {NAME}: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["fit", "check"])
def test_a_recipe_without_the_hash_ends_in_the_line_to_add_and_nothing_is_read(
    verb: str, site: Site, backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "films.yaml"
    text = f"data:\n  url: {site.url}/{NAME}\n  train: aclFilms/train\n  max_length: 32\n"
    rest = f"backbone: {backbone}\nhead: {{pool: mean}}\nfit: {{epochs: 1}}\nlogger: none\nbaseline: false\n"
    path.write_text(text + rest, "utf-8")
    arguments = ["fit", str(path), "--out", str(tmp_path / "run")] if verb == "fit" else ["check", str(path)]
    assert cli.run(arguments) == 2
    assert capsys.readouterr().err.splitlines()[-3:] == [
        f"DataError: data.sha256 is missing, so nothing tells whether {site.url}/{NAME} is the file that you mean; "
        f"what came has the sha256 {sha(ARCHIVE)}",
        f"  where: {path}:2:3 (data.url)",
        f"  next:  compare it with what the publisher states, then add below url:  sha256: {sha(ARCHIVE)}",
    ]
    assert not (tmp_path / "cache" / "archives").exists()
    assert not (tmp_path / "run" / "status.json").exists()
    path.write_text(text + f"  sha256: {sha(ARCHIVE)}\n" + rest, "utf-8")
    assert fit(path, out=tmp_path / "run", echo=silent).evaluation.n_rows > 0
    assert len(site.requests) == 1


def test_a_language_model_without_the_hash_is_not_trained_either(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"the sha256 {sha(ARCHIVE)}"):
        fit(language_recipe(Path("aclFilms/train"), data__url=f"{site.url}/{NAME}"), out=tmp_path / "run", echo=silent)
