"""The verbs from the outside: what they print, where, and with which exit code."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import html5lib
import pytest

from headrace import Bundle, cli
from headrace.cli_output import Answer, Table, printable, show
from headrace.decide.calibration import Calibration
from headrace.decide.decision import Decision
from headrace.errors import HeadraceError, Interrupted, TrainingStopped
from headrace.train.fit import fit
from tiny import tiny_folder
from tiny_bundle import csv_file, tiny_bundle

VERBS = [
    "demo",
    "new",
    "recipes",
    "check",
    "fit",
    "evaluate",
    "compare",
    "explain",
    "predict",
    "embed",
    "similar",
    "generate",
    "export",
]
LIGHT = "import sys; from headrace.cli import run; code = run(sys.argv[1:]); sys.stderr.write(' '.join(sys.modules)); sys.exit(code)"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe over 40 rows on a random encoder of width 32."""
    tiny_folder(tmp_path, "bert", name="backbone")
    csv_file(tmp_path / "train.csv", 40)
    path = tmp_path / "tiny.yaml"
    path.write_text(
        f"data: {{train: train.csv, valid: 20%, max_length: 32}}\nbackbone: {tmp_path / 'backbone'}\n"
        "fit: {epochs: 1, batch_size: 8, precision: fp32}\nlogger: none\n",
        "utf-8",
    )
    return path


def ran(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def answered(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    """Run with --json; the whole output must be one JSON object."""
    code, out, _ = ran(capsys, *arguments, "--json")
    value = json.loads(out)
    assert isinstance(value, dict)
    return code, value


# -- help, version, recipes ---------------------------------------------------------------------------------------


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ran(capsys, "--help")
    assert code == 0
    assert [verb for verb in VERBS if f" {verb} " in out] == VERBS
    assert "130/143 interrupted" in out
    assert len(cli.app.registered_commands) == len(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help_and_json(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    code, out, _ = ran(capsys, verb, "--help")
    assert code == 0
    assert "--json" in out


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["--version"], ["recipes"], ["recipes", "imdb"]])
def test_help_and_recipes_import_little(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout
    modules = done.stderr.split()
    heavy = {"torch", "transformers", "lightning", "datasets", "numpy", "scipy", "sklearn", "pandas", "pyarrow"}
    assert heavy & set(modules) == set()
    assert len(modules) < 600  # typer, rich and pydantic are some 350; torch alone is above 1,500


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ran(capsys, "--version")
    assert code == 0
    assert out.startswith("headrace 0.")


def test_recipes_lists_and_prints(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ran(capsys, "recipes")
    assert code == 0
    assert "imdb_distilbert" in out
    code, out, _ = ran(capsys, "recipes", "toxic")
    assert code == 0
    assert out.startswith("# Toxic comments")
    assert "label: [toxic, severe_toxic, obscene, threat, insult, identity_hate]" in out
    assert len(answered(capsys, "recipes")[1]["recipes"]) == 12
    assert answered(capsys, "recipes", "mnli")[1]["recipe"].startswith("# MNLI")


# -- errors and exit codes ----------------------------------------------------------------------------------------


def test_what_the_user_can_mend_is_exit_2_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = ran(capsys, "recipes", "toxik")
    assert code == 2
    assert out == ""
    assert err.splitlines()[0] == "RecipeError: there is no shipped recipe named 'toxik'"
    assert "  next:  did you mean 'toxic'?" in err
    assert "Traceback" not in err


def test_with_json_the_error_is_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    code, value = answered(capsys, "recipes", "toxik")
    assert code == 2
    assert value["error"] == "RecipeError"
    assert value["what"] == "there is no shipped recipe named 'toxik'"
    assert "did you mean 'toxic'?" in value["next"]


@pytest.mark.parametrize(
    "arguments", [["fitt"], ["fit"], ["recipes", "--nope"], ["similar", "b", "q", "f", "--top", "0"]]
)
def test_a_wrong_command_line_is_exit_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, out, err = ran(capsys, *arguments)
    assert (code, out) == (2, "")
    assert "Usage: headrace" in err
    assert answered(capsys, *arguments)[1]["error"] == "UsageError"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (HeadraceError("x"), 2),
        (TrainingStopped("the loss is not a finite number at step 3"), 1),
        (Interrupted("stopped", exit_code=130), 130),
        (Interrupted("stopped", exit_code=143), 143),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_kind_of_end_has_its_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("headrace.recipe.shipped_recipes", fail)
    found, _, err = ran(capsys, "recipes")
    assert found == code
    assert "Traceback" not in err


def test_our_fault_is_exit_3_with_traceback_and_where_to_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("headrace.recipe.shipped_recipes", fail)
    code, out, err = ran(capsys, "recipes")
    assert (code, out) == (3, "")
    assert "Traceback (most recent call last)" in err
    assert "This is a fault of Headrace, not yours. Please report it" in err
    code, value = answered(capsys, "recipes")
    assert code == 3
    assert value["what"] == "ZeroDivisionError: division by zero"


def test_what_a_library_prints_does_not_touch_the_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def chatty() -> dict[str, str]:
        print("Loading weights: 100%")
        return {"a": "b"}

    monkeypatch.setattr("headrace.recipe.shipped_recipes", chatty)
    code, out, err = ran(capsys, "recipes", "--json")
    assert (code, json.loads(out)) == (0, {"recipes": {"a": "b"}})
    assert "Loading weights" in err


def test_a_reader_that_goes_away_is_no_error() -> None:
    program = f"{sys.executable} -m headrace recipes imdb | true"
    done = subprocess.run(
        ["bash", "-c", f"{program}; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


def test_control_characters_of_the_data_do_not_reach_the_terminal() -> None:
    stream = io.StringIO()
    show(Answer({}, ["a\x1b[31mred\x07", Table(("x",), [("\x1b]0;title\x07",)])]), as_json=False, stream=stream)
    assert "\x1b" not in stream.getvalue()
    assert "\x07" not in stream.getvalue()
    assert printable("two\nlines\tand a tab") == "two\nlines and a tab"
    assert printable("[bold]") == "[bold]"


# -- the verbs on a tiny model ------------------------------------------------------------------------------------


def test_new_then_check(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    csv_file(tmp_path / "train.csv", 40)
    code, out, _ = ran(capsys, "new", "train.csv")
    assert code == 0
    assert "label: label" in out
    assert "next: headrace check recipe.yaml" in out
    code, value = answered(capsys, "new", "train.csv", "--out", "second.yaml")
    assert code == 0
    assert (value["recipe"], value["labels"]) == ("second.yaml", {"bad": 20, "good": 20})
    assert answered(capsys, "new", "train.csv")[0] == 2


def test_check_shows_counts_and_a_batch(capsys: pytest.CaptureFixture[str], recipe: Path) -> None:
    code, out, _ = ran(capsys, "check", recipe)
    assert code == 0
    assert "4 steps of training" in out
    assert "text as the model sees it" in out
    assert f"nothing to mend; next: headrace fit {recipe}" in out
    assert answered(capsys, "check", recipe)[1]["is_clean"] is True
    _, out, _ = ran(capsys, "check", recipe, "--no-forecast", "--set", "data.labels=[bad, good]")
    assert out.rstrip().endswith(f"next: headrace fit {recipe} --set 'data.labels=[bad, good]'")


def test_check_ends_with_1_when_there_are_findings(
    capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path
) -> None:
    csv_file(tmp_path / "test.csv", 6)  # the same rows as in train.csv
    code, out, _ = ran(capsys, "check", recipe, "--set", f"data.test={tmp_path / 'test.csv'}")
    assert code == 1
    assert "error [" in out
    code, value = answered(capsys, "check", recipe, "--set", f"data.test={tmp_path / 'test.csv'}")
    assert code == 1
    assert value["findings"][0]["severity"] == "error"


def test_check_ends_with_1_when_rows_are_left_out(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tiny_folder(tmp_path, "bert", name="backbone")
    lines = csv_file(tmp_path / "train.csv", 40).read_text("utf-8") + "a text alone\n"
    (tmp_path / "train.csv").write_text(lines, "utf-8")
    (tmp_path / "tiny.yaml").write_text(
        "data: {train: train.csv, on_bad_row: skip, max_length: 32}\nbackbone: ./backbone\n", "utf-8"
    )
    code, out, _ = ran(capsys, "check", "tiny.yaml")
    assert code == 1
    assert "warning [bad_rows]: 1 row of the training data cannot be read and is left out" in out
    assert answered(capsys, "check", "tiny.yaml", "--set", "data.allow=[bad_rows]")[0] == 0


def test_check_refuses_a_length_that_the_backbone_does_not_take(
    capsys: pytest.CaptureFixture[str], recipe: Path
) -> None:
    code, _, err = ran(capsys, "check", recipe, "--set", "data.max_length=129")
    assert code == 2
    assert "128 tokens at most" in err


def test_check_names_the_faults_of_a_recipe(capsys: pytest.CaptureFixture[str], recipe: Path) -> None:
    code, _, err = ran(capsys, "check", recipe, "--set", "fit.epoch=3")
    assert code == 2
    assert "there is no key 'fit.epoch'" in err
    assert "did you mean 'epochs'?" in err


def test_fit_trains_once_and_says_so_the_second_time(capsys: pytest.CaptureFixture[str], recipe: Path) -> None:
    code, value = answered(capsys, "fit", recipe, "--out", "run")
    assert code == 0
    assert value["was_finished"] is False
    assert 0 <= value["evaluation"]["metrics"]["accuracy"]["value"] <= 1
    assert Path(value["bundle"], "manifest.json").is_file()
    code, out, err = ran(capsys, "fit", recipe, "--out", "run")
    assert code == 0
    assert "accuracy" in out
    assert "next: headrace predict run/bundle FILE -o predictions.csv" in out
    assert "nothing was trained" in err
    assert ran(capsys, "predict", "run/bundle", "train.csv", "-o", "p.csv")[0] == 0
    code, _, err = ran(capsys, "fit", recipe, "--out", "run", "--set", "seed=14")
    assert code == 2
    assert "seed: 13 -> 14" in err


def test_fit_strict_ends_with_1_when_there_are_findings(
    capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path
) -> None:
    csv_file(tmp_path / "test.csv", 6)
    code, _, err = ran(capsys, "fit", recipe, "--strict", "--set", f"data.test={tmp_path / 'test.csv'}")
    assert code == 1
    assert "--strict stops at them" in err


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs on the same test rows and one on others."""
    folder = tmp_path_factory.mktemp("runs")
    for name, n_tested, seed in (("first", 40, 1), ("second", 40, 2), ("other", 30, 1)):
        data = {
            "train": str(csv_file(folder / "train.csv", 40)),
            "valid": "20%",
            "test": str(csv_file(folder / f"test{n_tested}.csv", n_tested)),
            "max_length": 32,
        }
        values = {
            "data": data,
            "backbone": {"name": str(tiny_folder(folder, "bert", name="backbone"))},
            "fit": {"epochs": 1, "batch_size": 8, "precision": "fp32"},
            "logger": "none",
            "baseline": False,
            "seed": seed,
        }
        fit(values, out=folder / name, echo=lambda line: None)
    return folder


def test_compare_says_which_run_is_better_and_how_sure_that_is(capsys: pytest.CaptureFixture[str], runs: Path) -> None:
    code, out, _ = ran(capsys, "compare", runs / "first", runs / "second")
    assert code == 0
    assert "test: 40 rows, single_label" in out
    assert "accuracy" in out
    assert "first" in out
    assert "second" in out
    code, value = answered(capsys, "compare", runs / "first", runs / "second", "--metric", "log_loss")
    assert code == 0
    assert value["metric"] == "log_loss"
    assert [one["name"] for one in value["runs"]] == ["first", "second"]
    assert [one["seeds"] for one in value["runs"]] == [[1], [2]]
    (verdict,) = value["verdicts"]
    found = [
        json.loads((runs / name / "report.json").read_text("utf-8"))["metrics"]["log_loss"]["value"]
        for name in ("first", "second")
    ]
    assert verdict["difference"]["value"] == pytest.approx(found[1] - found[0], abs=1e-6)
    assert verdict["sentence"] in ran(capsys, "compare", runs / "first", runs / "second", "--metric", "log_loss")[1]


@pytest.mark.parametrize(
    ("arguments", "what", "next_step"),
    [
        (["first", "other"], "not scored on the same rows (40 test rows and 30 test rows)", "data.test"),
        (["first"], "", ""),
        (["first", "second", "--metric", "acuracy"], "acuracy", "did you mean 'accuracy'"),
        (["first", "second", "--against", "last"], "last", "first"),
        (["first", "nowhere"], "there is no finished run in", "headrace fit"),
        (["first", "second/bundle"], "there is no finished run in", "give the run's folder"),
    ],
)
def test_runs_that_cannot_be_compared_are_exit_2(
    capsys: pytest.CaptureFixture[str],
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    what: str,
    next_step: str,
) -> None:
    monkeypatch.chdir(runs)
    code, out, err = ran(capsys, "compare", *arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    code, value = answered(capsys, "compare", *arguments)
    assert code == 2
    assert what in value["what"]
    assert next_step in value["next"]


def test_explain_shows_words_as_text_as_json_and_as_a_page(
    capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path
) -> None:
    text = "A good film with a <b>warm</b> heart."
    code, out, _ = ran(capsys, "explain", bundle, text)
    assert code == 0
    answer = Bundle.load(bundle).predict(text).label
    assert answer is not None
    assert answer in out
    assert "warm" in out
    code, value = answered(capsys, "explain", bundle, text, "--html", "why.html")
    assert code == 0
    assert value["label"] == answer
    assert value["html"] == "why.html"
    assert value["texts"] == [text]
    assert value["error_share"] <= 0.02
    assert value["total"] == pytest.approx(sum(word["attribution"] for word in value["words"]), abs=1e-6)
    page = (tmp_path / "why.html").read_text("utf-8")
    html5lib.HTMLParser(strict=True).parse(page)
    assert "<b>warm</b>" not in page
    other = answered(capsys, "explain", bundle, text, "--label", "bad" if answer == "good" else "good")[1]
    assert other["total"] == pytest.approx(-value["total"], rel=0.05)
    assert "page: why.html" in ran(capsys, "explain", bundle, text, "--html", "why.html")[1]


def test_explain_refuses_what_it_cannot_explain(capsys: pytest.CaptureFixture[str], bundle: Path) -> None:
    code, out, err = ran(capsys, "explain", bundle, "A good film.", "--label", "godo")
    assert (code, out) == (2, "")
    assert "'godo'" in err
    assert "did you mean 'good'?" in err
    assert answered(capsys, "explain", bundle, "A good film.", "--label", "godo")[1]["error"] == "RecipeError"
    code, value = answered(capsys, "explain", bundle, "A good film.", "--pair", "A bad one.")
    assert (code, value["error"]) == (2, "DataError")


def test_fit_with_seeds_trains_each_and_says_how_far_they_spread(
    capsys: pytest.CaptureFixture[str], recipe: Path
) -> None:
    code, value = answered(capsys, "fit", recipe, "--out", "many", "--seeds", "2", "--set", "baseline=false")
    assert code == 0
    assert value["seeds"] == [13, 14]
    assert value["best"] in (13, 14)
    assert value["bundle"] == f"many/seed-{value['best']}/bundle"
    assert len(value["metrics"]["accuracy"]["values"]) == 2
    assert json.loads(Path("many/seeds.json").read_text("utf-8"))["seeds"] == [13, 14]
    code, out, err = ran(capsys, "fit", recipe, "--out", "many", "--seeds", "2", "--set", "baseline=false")
    assert code == 0
    assert "2 seeds (13, 14), mean ± standard deviation on valid:" in out
    assert f"next: headrace predict many/seed-{value['best']}/bundle FILE" in out
    assert err.count("nothing was trained") == 2
    code, _, err = ran(capsys, "fit", recipe, "--seeds", "1")
    assert code == 2
    assert "--seeds" in err


def test_check_with_labels_shows_the_labels_in_doubt(
    capsys: pytest.CaptureFixture[str], recipe: Path, tmp_path: Path
) -> None:
    lines = csv_file(tmp_path / "train.csv", 80).read_text("utf-8").splitlines()
    wrong = lines[10].rpartition(",")
    lines[10] = f"{wrong[0]},{'bad' if wrong[2] == 'good' else 'good'}"
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n", "utf-8")
    code, value = answered(capsys, "check", recipe, "--labels")
    assert code in (0, 1)
    suspects = value["suspects"]
    worst = suspects["rows"][0]
    assert worst["where"].endswith("train.csv:11")
    assert worst["given"] != worst["suggested"]
    assert "labels most in doubt" in ran(capsys, "check", recipe, "--labels")[1]
    assert answered(capsys, "check", recipe)[1]["suspects"] is None


def test_predict_writes_or_shows(capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path) -> None:
    path = csv_file(tmp_path / "a.csv", 4)
    code, out, _ = ran(capsys, "predict", bundle, path, "-o", "p.csv")
    assert code == 0
    assert "4 predictions: p.csv" in out
    assert len((tmp_path / "p.csv").read_text("utf-8").splitlines()) == 5
    code, value = answered(capsys, "predict", bundle, path)
    assert code == 0
    assert [row["row"] for row in value["predictions"]] == [2, 3, 4, 5]
    assert set(value["predictions"][0]["scores"]) == {"bad", "good"}


def test_predict_shows_what_it_is_not_sure_of(capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path) -> None:
    plain = Bundle.load(bundle)
    decision = Decision(plain.labels, Calibration(), abstain_below=1.0, error_rate=0.1, confidence=0.9)
    Bundle(plain.classifier, plain.subwords, replace(plain.about, decision=decision.as_dict())).save("careful")
    path = csv_file(tmp_path / "a.csv", 2)
    code, out, _ = ran(capsys, "predict", "careful", path)
    assert code == 0
    assert out.count("not sure (") == 2
    code, value = answered(capsys, "predict", "careful", path)
    assert code == 0
    assert [(row["label"], row["reason"]) for row in value["predictions"]] == [(None, "abstain")] * 2
    _, value = answered(capsys, "predict", "careful", path, "--threshold", "good=0.5")
    assert all(row["label"] in ("bad", "good") for row in value["predictions"])


def test_predict_reads_a_pipe(
    capsys: pytest.CaptureFixture[str], bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = type("Pipe", (), {"buffer": io.BytesIO(b"a good film\nthe plot is bad\n")})
    monkeypatch.setattr(sys, "stdin", pipe)
    code, value = answered(capsys, "predict", bundle, "-")
    assert code == 0
    assert len(value["predictions"]) == 2


def test_bad_rows_end_with_1(capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a good film"}\n{"text":\n', "utf-8")
    code, out, _ = ran(capsys, "predict", bundle, "a.jsonl", "-o", "p.csv")
    assert code == 1
    assert "1 row could not be read, with reasons: p.csv.errors.jsonl" in out
    code, value = answered(capsys, "predict", bundle, "a.jsonl", "-o", "p.csv")
    assert (code, value["n_rows"], value["n_predicted"], value["n_bad_rows"]) == (1, 2, 1, 1)
    assert value["errors"] == "p.csv.errors.jsonl"
    code, value = answered(capsys, "predict", bundle, "a.jsonl")
    assert (code, value["n_bad_rows"], len(value["predictions"])) == (1, 1, 1)


def test_evaluate_shows_metrics_with_intervals(
    capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path
) -> None:
    path = csv_file(tmp_path / "a.csv", 20)
    code, out, _ = ran(capsys, "evaluate", bundle, path, "--out", "ev")
    assert code == 0
    assert "95 % interval" in out
    assert "ev/report.json" in out
    assert (tmp_path / "ev" / "errors.csv").is_file()
    accuracy = answered(capsys, "evaluate", bundle, path)[1]["evaluation"]["metrics"]["accuracy"]
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]


def test_embed_and_similar(capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path) -> None:
    path = csv_file(tmp_path / "a.csv", 6)
    code, value = answered(capsys, "embed", bundle, path, "-o", "v.npy", "--pool", "cls")
    assert code == 0
    assert (value["n_rows"], value["width"]) == (6, 32)
    code, out, _ = ran(capsys, "embed", bundle, path, "-o", "v.parquet", "--pool", "none")
    assert (code, out) == (0, "6 texts, a vector of width 32 for each token: v.parquet\n")
    code, value = answered(capsys, "embed", bundle, path, "-o", "v.npy", "--pool", "none")
    assert (code, value["error"]) == (2, "DataError")
    code, value = answered(capsys, "similar", bundle, "a good film", path, "--top", "2")
    assert code == 0
    assert len(value["matches"]) == 2
    code, out, _ = ran(capsys, "similar", bundle, "a good film", path)
    assert code == 0
    assert "cosine" in out


def test_the_query_of_a_bundle_of_pairs_has_a_second_text(
    capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path
) -> None:
    pairs = tiny_bundle(tmp_path / "pairs", labels=("no", "yes"), text={"columns": ("premise", "hypothesis")})
    path = tmp_path / "pairs.jsonl"
    texts = [("a good film", "it is slow"), ("a good film", "it is warm"), ("a dull film", "it is warm")]
    lines = [json.dumps({"premise": first, "hypothesis": second}) for first, second in texts]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    code, value = answered(capsys, "similar", pairs, "a good film", path, "--pair", "it is warm", "--top", "1")
    assert code == 0
    (match,) = value["matches"]
    assert (match["row"], match["text"]) == (2, ["a good film", "it is warm"])
    assert match["cosine"] == pytest.approx(1, abs=1e-5)
    code, value = answered(capsys, "similar", pairs, "a good film", path)
    assert (code, value["error"]) == (2, "DataError")
    assert "is not a pair (premise, hypothesis)" in value["what"]
    code, value = answered(capsys, "similar", bundle, "a good film", path, "--pair", "it is warm")
    assert (code, value["error"]) == (2, "DataError")
    assert "is not a text" in value["what"]


def test_export_writes_a_folder_or_gives_the_reason(
    capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path
) -> None:
    code, value = answered(capsys, "export", bundle, "--to", "transformers", "-o", "exported")
    assert code == 0
    assert value["largest_difference"] <= 1e-5
    assert (tmp_path / "exported" / "config.json").is_file()
    beside = bundle.with_name(f"{bundle.name}-transformers")
    assert answered(capsys, "export", bundle, "--to", "transformers")[1]["out"] == str(beside)
    assert (beside / "config.json").is_file()
    code, _, err = ran(capsys, "export", bundle, "--to", "onnx", "-o", "x")
    assert code == 2
    assert "there is no export to 'onnx'" in err


def test_a_folder_that_is_no_bundle_is_exit_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments in (
        ["predict", tmp_path, "a.csv"],
        ["evaluate", tmp_path, "a.csv"],
        ["similar", tmp_path, "q", "a.csv"],
    ):
        code, value = answered(capsys, *arguments)
        assert (code, value["error"]) == (2, "BundleError")


def test_shipped_samples_are_found_wherever_one_stands(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tiny_folder(tmp_path, "bert", name="backbone")
    for name, n_labels in (("demo", 2), ("reviews", 2), ("pairs", 3), ("tickets", 6)):
        changes = ["--set", f"backbone={tmp_path / 'backbone'}", "--set", "data.max_length=32"]
        code, value = answered(capsys, "check", name, *changes, "--no-forecast")
        assert code in (0, 1)
        assert len(value["labels"]) == n_labels, name
        assert [split["name"] for split in value["splits"]] == ["train", "valid", "test"]


def test_a_recipe_with_a_base_finds_the_samples_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tiny_folder(tmp_path, "bert", name="backbone")
    (tmp_path / "mine.yaml").write_text(
        f"base: reviews\nbackbone: {tmp_path / 'backbone'}\ndata: {{max_length: 32}}\n", "utf-8"
    )
    code, value = answered(capsys, "check", "mine.yaml", "--no-forecast")
    assert code == 0
    assert value["splits"][2]["n_rows"] == 100
