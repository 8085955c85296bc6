"""From YAML, base, overrides and defaults to one recipe; all faults of it together, each with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.errors import RecipeError
from headrace.recipe import Recipe, load_recipe, shipped_recipe, shipped_recipes
from headrace.recipe.places import located


def written(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(text, "utf-8")
    return path


def refused(folder: Path, text: str, *overrides: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(folder, text), overrides=overrides)
    return caught.value


def test_an_unknown_key_is_refused_with_its_line_and_the_nearest_key(tmp_path: Path) -> None:
    error = refused(tmp_path, "task: single_label\nfit:\n  epoch: 2\n")
    assert error.what == "there is no key 'fit.epoch'"
    assert error.where == f"{tmp_path / 'r.yaml'}:3:3"
    assert error.next is not None
    assert error.next.startswith("did you mean 'epochs'? known keys here: epochs, micro_batch")


def test_an_unknown_top_key_offers_the_top_keys(tmp_path: Path) -> None:
    error = refused(tmp_path, "tsak: single_label\n")
    assert error.what == "there is no key 'tsak'"
    assert error.next is not None
    assert "did you mean 'task'?" in error.next
    assert "base" in error.next


def test_a_class_path_is_an_unknown_key(tmp_path: Path) -> None:
    error = refused(tmp_path, "head:\n  class_path: os.system\n  init_args: {command: id}\n")
    assert "there is no key 'head.class_path'" in str(error)
    assert "there is no key 'head.init_args'" in str(error)


def test_all_faults_come_at_once_each_with_its_line(tmp_path: Path) -> None:
    error = refused(
        tmp_path,
        "task: multi_lable\ndata:\n  max_length: 0\n  vaild: 10%\nfit:\n  learning_rate: -1\n  layer_decay: 2.6\n",
    )
    text = str(error)
    path = tmp_path / "r.yaml"
    assert f"5 faults in {path}" in text
    assert f"there is no task named 'multi_lable' ({path}:1:7)" in text
    assert "did you mean 'multi_label'? available: language_model, multi_label, single_label" in text
    assert f"data.max_length: 0 will not do: input should be greater than or equal to 1 ({path}:3:15)" in text
    assert f"there is no key 'data.vaild' ({path}:4:3)" in text
    assert f"fit.learning_rate: -1 will not do: input should be greater than 0 ({path}:6:18)" in text
    assert f"({path}:7:16)" in text


def test_a_growth_factor_is_answered_with_its_reciprocal(tmp_path: Path) -> None:
    error = refused(tmp_path, "fit:\n  layer_decay: 2.6\n")
    assert "for a factor of 2.6 between groups write 0.3846" in error.what
    assert error.where == f"{tmp_path / 'r.yaml'}:2:16"
    assert load_recipe({"fit": {"layer_decay": 0.3846}}).values.fit.layer_decay == 0.3846


def test_1e_5_is_a_rate(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, "fit:\n  learning_rate: 1e-5\n"))
    assert recipe.values.fit.learning_rate == 1e-5


@pytest.mark.parametrize("value", ["yes", "fast", "[1]", ".nan", ".inf"])
def test_a_rate_that_is_no_number_is_refused_with_what_the_key_means(tmp_path: Path, value: str) -> None:
    error = refused(tmp_path, f"fit:\n  learning_rate: {value}\n")
    assert error.what.startswith("fit.learning_rate: ")
    assert error.next == "fit.learning_rate: peak, of the top group"


@pytest.mark.parametrize(
    ("text", "what", "column"),
    [
        ("task: language_model\nfit:\n  label_smoothing: 0.1\n", "fit.label_smoothing is for classifiers", "3:3"),
        ("language_model:\n  sampler: balanced\n", "language_model.sampler is for classifiers", "2:3"),
        ("task: language_model\nlanguage_model:\n  epochs: 9\n", "language_model.epochs is for the recipe of a", "3:3"),
        ("task: language_model\nlanguage_model:\n  train: a.csv\n", "language_model.train is for the recipe", "3:3"),
        ("data:\n  train: [a.csv, b.csv]\n", "several files of training data are for task: language_model", "2:10"),
        ("language_model:\n  epochs: many\n", "language_model.epochs: many will not do", "2:11"),
        ("language_model:\n  valid: 100%\n", "language_model.valid: 100% will not do", "2:10"),
    ],
)
def test_what_does_not_go_with_a_language_model_is_refused(tmp_path: Path, text: str, what: str, column: str) -> None:
    error = refused(tmp_path, text)
    assert error.what.startswith(what)
    assert error.where == f"{tmp_path / 'r.yaml'}:{column}"


def test_the_files_of_a_language_model_are_found_beside_the_recipe_and_it_resolves_to_itself(tmp_path: Path) -> None:
    text = "task: language_model\ndata: {train: [a.csv, 'hub:some/texts']}\nlanguage_model: {sequence_length: 35}\n"
    recipe = load_recipe(written(tmp_path, text))
    assert recipe.values.data.train == [str(tmp_path / "a.csv"), "hub:some/texts"]
    assert load_recipe(written(tmp_path, recipe.to_yaml())).values == recipe.values


def test_a_block_inside_a_classifiers_recipe_has_the_keys_of_data_and_fit(tmp_path: Path) -> None:
    text = "language_model:\n  train: [a.csv, b.csv]\n  batch_size: 64\n  stages: [{train: head}, {epochs: 10}]\n"
    recipe = load_recipe(written(tmp_path, text))
    block = recipe.values.language_model
    assert block is not None
    assert (block.train, block.batch_size, block.epochs) == (
        [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")],
        64,
        11,
    )
    assert load_recipe(written(tmp_path, recipe.to_yaml())).values == recipe.values


def test_a_stage_says_what_it_does_not_inherit_and_the_epochs_are_summed(tmp_path: Path) -> None:
    text = "fit:\n  learning_rate: 1e-3\n  schedule: one_cycle\n  stages:\n    - {train: head, learning_rate: 2e-2}\n"
    recipe = load_recipe(written(tmp_path, text + "    - {train: 2 groups, epochs: 3, layer_decay: 0.385}\n"))
    first, second = recipe.values.fit.stages or []
    assert (first.train, first.epochs, first.learning_rate, first.schedule) == ("head", 1, 2e-2, "one_cycle")
    assert (second.train, second.epochs, second.learning_rate, second.layer_decay) == ("2 groups", 3, 1e-3, 0.385)
    assert recipe.values.fit.epochs == 4
    assert load_recipe(written(tmp_path, recipe.to_yaml())).values == recipe.values


@pytest.mark.parametrize(
    ("stage", "what", "column"),
    [
        ("{train: heads}", "fit.stages.0.train: heads will not do: what learns is", 20),
        ("{layer_decay: 2.6}", "for a factor of 2.6 between groups write 0.3846", 26),
        ("{batch_size: 3}", "there is no key 'fit.stages.0.batch_size'", 13),
        ("{monitor: loss}", "there is no key 'fit.stages.0.monitor'", 13),
        ("{learning_rat: 1}", "there is no key 'fit.stages.0.learning_rat'", 13),
    ],
)
def test_a_fault_in_a_stage_names_the_stage(tmp_path: Path, stage: str, what: str, column: int) -> None:
    error = refused(tmp_path, f"fit:\n  stages: [{stage}]\n")
    assert what in error.what
    assert error.where == f"{tmp_path / 'r.yaml'}:2:{column}"


def test_baseline_false_is_accepted() -> None:
    assert load_recipe({"baseline": False}).values.baseline is False


def test_nothing_decided_in_a_word() -> None:
    decide = load_recipe({"decide": "none"}).values.decide
    assert (decide.calibrate, decide.threshold, decide.abstain) == ("none", "default", None)


def test_the_rule_of_the_thresholds_is_one() -> None:
    values = load_recipe({"task": "multi_label", "decide": {"threshold": {"precision": 0.9}}}).values
    assert values.decide.threshold.model_dump(exclude_none=True) == {"precision": 0.9}


def test_costs_are_two_numbers_or_two_for_each_label(tmp_path: Path) -> None:
    both, two = {"false_positive": 1.0, "false_negative": 5.0}, {"false_positive": 2.0, "false_negative": 1.0}
    for given in (both, {"threat": both, "false_positive": two}):
        recipe = load_recipe({"task": "multi_label", "decide": {"threshold": {"cost": given}}})
        rule = recipe.values.decide.threshold
        assert rule.model_dump(exclude_none=True) == {"cost": given}
        assert load_recipe(written(tmp_path, recipe.to_yaml())).values == recipe.values
    recipe = load_recipe(
        {"task": "multi_label", "decide": {"threshold": {"cost": {"threat": both}}}},
        overrides=["decide.threshold.cost.threat.false_negative=50"],
    )
    assert recipe.values.decide.threshold.cost["threat"].false_negative == 50


@pytest.mark.parametrize(
    ("costs", "what", "column"),
    [
        (
            "{a: {false_positive: 1, false_negative: -5}}",
            "cost.a.false_negative: -5 will not do: input should be greater than 0",
            68,
        ),
        (
            "{a: {false_positive: 1, false_negative: 5, costs: 2}}",
            "there is no key 'decide.threshold.cost.a.costs'",
            71,
        ),
        (
            "{a: {false_positive: 1, false_negative: 5}, b: 3}",
            "decide.threshold.cost.b: 3 will not do: a mapping is needed",
            75,
        ),
        ("{false_positive: 1, false_negative: -5}", "cost.false_negative: -5 will not do", 64),
    ],
)
def test_a_wrong_cost_is_told_once_with_its_label_and_place(tmp_path: Path, costs: str, what: str, column: int) -> None:
    error = refused(tmp_path, f"task: multi_label\ndecide: {{threshold: {{cost: {costs}}}}}\n")
    assert what in error.what
    assert error.next is not None
    assert error.where == f"{tmp_path / 'r.yaml'}:2:{column}"


@pytest.mark.parametrize(
    ("text", "what", "where"),
    [
        ("task: multi_label\ndecide: {calibrate: temperature}\n", "decide.calibrate: temperature is not for", "2:21"),
        ("decide: {calibrate: isotonic}\n", "decide.calibrate: isotonic is not for task: single_label", "1:21"),
        ("decide: {threshold: f1}\n", "decide.threshold is for task: multi_label", "1:10"),
        ("task: multi_label\ndecide: {threshold: {f_beta: 2, precision: 0.9}}\n", "give exactly one of", "2:10"),
        ("decide: {abstain: 1.5}\n", "decide.abstain.error_rate: 1.5 will not do", "1:19"),
        ("decide: {abstain: {error: 0.1}}\n", "there is no key 'decide.abstain.error'", "1:20"),
        ("decide: all\n", "decide: all will not do", "1:9"),
    ],
)
def test_what_cannot_be_decided_so(tmp_path: Path, text: str, what: str, where: str) -> None:
    error = refused(tmp_path, text)
    assert what in str(error)
    assert f"r.yaml:{where}" in str(error)


def test_an_error_that_names_a_mapping_of_labels_says_where_it_begins() -> None:
    origins = {("fit", "class_weights", "god"): "r.yaml:3:5", ("fit", "epochs"): "default"}
    assert located("fit.class_weights", origins) == "r.yaml:3:5"
    assert located("fit", {("fit", "epochs"): "default"}) is None


def test_overrides_win_and_say_where_they_come_from(tmp_path: Path) -> None:
    path = written(tmp_path, "fit:\n  epochs: 2\n  batch_size: 8\n")
    recipe = load_recipe(path, overrides=["fit.epochs=5", "seed=7"])
    assert (recipe.values.fit.epochs, recipe.values.fit.batch_size, recipe.values.seed) == (5, 8, 7)
    assert recipe.origins["fit", "epochs"] == "--set"
    assert recipe.origins["fit", "batch_size"] == f"{path}:3:3"
    assert recipe.origins["fit", "learning_rate"] == "default"


def test_a_fault_in_an_override_names_the_override(tmp_path: Path) -> None:
    error = refused(tmp_path, "fit:\n  epochs: 2\n", "fit.epochs=none")
    assert error.where == "--set fit.epochs"
    unknown = refused(tmp_path, "fit:\n  epochs: 2\n", "fit.epoch=3")
    assert unknown.what == "there is no key 'fit.epoch'"
    assert unknown.where == "--set fit.epoch"


def test_an_override_reaches_into_a_part_that_is_named_by_one_word() -> None:
    recipe = load_recipe({"backbone": "minilm"}, overrides=["backbone.dropout=0.2"])
    assert (recipe.values.backbone.name, recipe.values.backbone.dropout) == ("minilm", 0.2)


def test_base_gives_values_and_the_own_recipe_wins(tmp_path: Path) -> None:
    path = written(tmp_path, "base: imdb\ndata:\n  train: mine.csv\nfit:\n  epochs: 9\n")
    recipe = load_recipe(path)
    base = load_recipe("imdb")
    assert recipe.values.fit.epochs == 9
    assert recipe.values.fit.learning_rate == base.values.fit.learning_rate
    assert recipe.values.data.labels == ["neg", "pos"]
    assert recipe.values.data.train == str(tmp_path / "mine.csv")
    assert recipe.origins["fit", "epochs"] == f"{path}:5:3"
    assert recipe.origins["data", "max_length"].startswith("base imdb:")


def test_an_unknown_base_offers_the_nearest(tmp_path: Path) -> None:
    error = refused(tmp_path, "base: imbd\n")
    assert error.what == "there is no shipped recipe named 'imbd'"
    assert error.where == f"{tmp_path / 'r.yaml'}:1:7"
    assert error.next is not None
    assert error.next.startswith("did you mean 'imdb'?")


def test_the_resolved_recipe_runs_again_unchanged(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "base: toxic\ndata:\n  train: a.csv\n  test:\nfit: {learning_rate: 3e-5, early_stopping: 2, warmup: 0.33 epochs}\n"
        "trainer: {max_steps: 10}\nlogger: [tensorboard, csv]\n",
    )
    first = load_recipe(path, overrides=["data.downsample={rows: no_label, to: labelled}", "seed=99"])
    elsewhere = tmp_path / "run"
    elsewhere.mkdir()
    resolved = written(elsewhere, first.to_yaml())
    second = load_recipe(resolved)
    assert second.as_dict() == first.as_dict()
    assert second.fingerprint() == first.fingerprint()
    third = load_recipe(written(tmp_path, second.to_yaml()))
    assert third.as_dict() == first.as_dict()


def test_the_resolved_recipe_tells_each_origin(tmp_path: Path) -> None:
    path = written(tmp_path, "fit:\n  epochs: 2\n")
    lines = load_recipe(path, overrides=["seed=5"]).to_yaml().splitlines()
    assert f"  epochs: 2  # {path}:2:3" in lines
    assert "seed: 5  # --set" in lines
    assert "  batch_size: 32  # default" in lines


def test_relative_data_paths_start_at_the_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, "data: {train: sub/a.csv, valid: 25%, test: 'hub:owner/name'}\n"))
    data = recipe.values.data
    assert data.train == str(tmp_path / "sub" / "a.csv")
    assert (data.valid, data.valid_share) == ("25%", 0.25)
    assert data.test == "hub:owner/name"


def test_relative_paths_of_an_override_start_at_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = tmp_path / "current"
    for folder in (tmp_path / "models" / "own", current / "models" / "own"):
        folder.mkdir(parents=True)
    path = written(tmp_path, "data: {train: a.csv, test: b.csv}\nbackbone: ./models/own\n")
    monkeypatch.chdir(current)
    recipe = load_recipe(path, overrides=["data.train=sub/mine.csv", "data.valid=v.csv"])
    assert recipe.values.data.train == str(current / "sub" / "mine.csv")
    assert recipe.values.data.valid == str(current / "v.csv")
    assert recipe.values.data.test == str(tmp_path / "b.csv")
    assert recipe.values.backbone.name == str(tmp_path / "models" / "own")
    whole = load_recipe(path, overrides=["data={train: mine.csv}", "backbone=./models/own"])
    assert whole.values.data.train == str(current / "mine.csv")
    assert whole.values.backbone.name == str(current / "models" / "own")
    monkeypatch.chdir(tmp_path)  # once found, a path stays what it is
    assert load_recipe(recipe).values.data.train == str(current / "sub" / "mine.csv")


def test_samples_of_shipped_recipes_are_found_inside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = {"demo": "reviews", "reviews": "reviews", "pairs": "pairs", "tickets": "tickets"}
    for name, folder in folders.items():
        data = load_recipe(name).values.data
        for found in (Path(str(data.train)), Path(str(data.test))):
            assert found.is_file(), name
            assert found.parent == samples / folder
    own = load_recipe(written(tmp_path, "base: reviews\ndata: {test: samples/reviews/test.csv}\n")).values.data
    assert own.train == str(samples / "reviews" / "train.csv")
    assert own.test == str(tmp_path / "samples" / "reviews" / "test.csv")  # what a recipe of one's own says is its own


def test_a_mapping_is_a_recipe_and_its_faults_name_the_key() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe({"fit": {"epochs": 0}})
    assert caught.value.what == "fit.epochs: 0 will not do: input should be greater than or equal to 1"
    assert caught.value.where == "the recipe given: fit.epochs"


def test_a_recipe_loads_as_itself() -> None:
    first = load_recipe({"fit": {"epochs": 2}})
    again = load_recipe(first, overrides=["fit.epochs=4"])
    assert isinstance(again, Recipe)
    assert again.values.fit.epochs == 4
    assert load_recipe(first).as_dict() == first.as_dict()


def test_with_values_marks_the_origin() -> None:
    changed = load_recipe({}).with_values({"data.max_length": 64}, origin="argument")
    assert changed.values.data.max_length == 64
    assert changed.origins["data", "max_length"] == "argument"


def test_a_missing_file_offers_what_lies_beside_it(tmp_path: Path) -> None:
    written(tmp_path, "seed: 1\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "r.yml")
    assert caught.value.what == f"there is no recipe file {str(tmp_path / 'r.yml')!r}"
    assert caught.value.next is not None
    assert "did you mean 'r.yaml'?" in caught.value.next
    assert "`headrace new DATA` writes one" in caught.value.next


def test_a_recipe_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes("data: {label: größe}\n".encode("latin-1"))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.next == "save it as UTF-8"


@pytest.mark.parametrize(
    ("text", "what", "place"),
    [
        ("data: {label: [a, b]}\n", "several label columns are for task: multi_label", "1:15"),
        ("fit: {pos_weight: balanced}\n", "fit.pos_weight is for task: multi_label", "1:7"),
        ("task: multi_label\nfit: {class_weights: balanced}\n", "fit.class_weights is for task: single_label", "2:7"),
    ],
)
def test_what_is_of_the_other_task_is_refused(tmp_path: Path, text: str, what: str, place: str) -> None:
    error = refused(tmp_path, text)
    assert (error.what, error.where) == (what, f"{tmp_path / 'r.yaml'}:{place}")


def test_a_fault_of_a_value_points_at_the_value_as_the_style_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.yaml").write_text("task: multi_lable\n", "utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe("reviews.yaml")
    assert str(caught.value).splitlines() == [
        "there is no task named 'multi_lable'",
        "  where: reviews.yaml:1:7",
        "  next:  did you mean 'multi_label'? available: language_model, multi_label, single_label",
    ]


def test_a_fault_across_a_section_points_at_its_key(tmp_path: Path) -> None:
    error = refused(tmp_path, "seed: 1\nhead:\n  name: ulmfit\n  pool: mean\n")
    assert "the head ulmfit has pool: concat" in error.what
    assert error.where == f"{tmp_path / 'r.yaml'}:2:1"


def test_a_value_of_the_base_that_does_not_suit_points_into_the_base(tmp_path: Path) -> None:
    error = refused(tmp_path, "base: toxic\ntask: single_label\n")
    line = next(n for n, text in enumerate(shipped_recipe("toxic").splitlines(), 1) if text.startswith("  label: "))
    assert error.what == "several label columns are for task: multi_label"
    assert error.where == f"base toxic:{line}:10"


def test_the_shipped_recipes_have_a_sentence_each_and_load() -> None:
    recipes = shipped_recipes()
    ours = ["demo", "pairs", "reviews", "tickets"]  # with their data
    theirs = ["imdb", "imdb_distilbert", "imdb_minilm_mlm", "imdb_ulmfit", "mnli", "mnli_bert", "toxic", "toxic_bert"]
    assert list(recipes) == sorted([*ours, *theirs])
    for name, sentence in recipes.items():
        assert sentence.endswith("."), name
        assert load_recipe(name).values.data.train, name


def test_each_line_of_the_shipped_recipes_loads_under_its_comment() -> None:
    n_seen = 0
    for name in shipped_recipes():
        lines = shipped_recipe(name).splitlines()
        assert lines[0].startswith("# "), name
        bare = [line for line in lines if "#" not in line and line not in ("data:", "fit:", "seed: 13")]
        assert all(line.startswith("  epochs: ") or line.startswith("  learning_rate: ") for line in bare), (name, bare)
        n_seen += 1
    assert n_seen == 12


@pytest.mark.parametrize(
    ("text", "column"),
    [("micro_batch: 8", 3), ("accumulate: 2", 3), ("stages: [{train: head}, {train: all, micro_batch: 4}]", 40)],
)
def test_a_step_is_not_cut_under_a_head_with_batch_norm(tmp_path: Path, text: str, column: int) -> None:
    error = refused(tmp_path, f"head: ulmfit\nfit:\n  {text}\n")
    assert "would cut it in pieces" in error.what
    assert error.where == f"{tmp_path / 'r.yaml'}:3:{column}"


def test_several_processes_do_not_share_a_batch_norm(tmp_path: Path) -> None:
    error = refused(tmp_path, "head: ulmfit\ntrainer: {devices: 2}\n")
    assert "several processes would each have a part" in error.what
    assert error.where == f"{tmp_path / 'r.yaml'}:2:11"


@pytest.mark.parametrize("head", ["native", "{pool: pooler}"])
def test_a_head_that_no_language_model_leaves_is_refused_before_it_is_trained(tmp_path: Path, head: str) -> None:
    error = refused(tmp_path, f"language_model: {{epochs: 1}}\nhead: {head}\n")
    assert "neither its family's head nor its pooler" in error.what


STAGES = """\
base: reviews
head: {name: ulmfit}
fit:
  stages:
    - {train: head, epochs: 1}
    - train: 2 groups
      micro_batch: 4
      layer_decay: 2.6
      epoch: 1
"""


def test_the_faults_of_a_stage_have_their_own_lines(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(STAGES, "utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    told = str(caught.value)
    for where, what in (("7:7", "micro_batch"), ("8:20", "layer_decay"), ("9:7", "epoch")):
        assert any(what in line and f"{path}:{where}" in line for line in told.splitlines()), (what, told)


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("fit.stages, stage 2", "6:7"),
        ("fit.stages", "4:3"),
        ("head: name", "2:8"),
        ("fit.layer_decay", None),  # the default
        ("labels", None),  # no key
        ("/data/a.csv:3:1", None),
    ],
)
def test_an_error_that_names_a_key_tells_its_line(where: str, line: str | None, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(STAGES.replace("head: {name: ulmfit}", "head: {name: linear}").split("      micro")[0], "utf-8")
    recipe = load_recipe(path)
    with pytest.raises(RecipeError) as caught, recipe.locating():
        raise RecipeError("no", where=where)
    assert caught.value.where == (where if line is None else f"{path}:{line} ({where})")


def test_an_error_in_an_override_tells_so() -> None:
    recipe = load_recipe("reviews", overrides=["fit.stages=[{train: head}, {train: all}]"])
    with pytest.raises(RecipeError) as caught, recipe.locating():
        raise RecipeError("no", where="fit.stages, stage 2")
    assert caught.value.where == "--set (fit.stages, stage 2)"
