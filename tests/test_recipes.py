"""Each shipped recipe fits for two steps on tiny random weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.bundle import Bundle
from headrace.recipe import load_recipe, shipped_recipes
from headrace.train.fit import fit
from tiny import tiny_folder
from tiny_fits import silent

SAMPLES = {
    "imdb": ["review", "sentiment", "reviews/train.csv"],
    "imdb_distilbert": ["review", "sentiment", "reviews/train.csv"],
    "imdb_minilm_mlm": ["review", "sentiment", "reviews/train.csv"],
    "imdb_ulmfit": ["review", "sentiment", "reviews/train.csv"],
    "mnli": [None, None, "pairs/train.jsonl"],
    "mnli_bert": [None, None, "pairs/train.jsonl"],
    "toxic": [None, None, None],
    "toxic_bert": [None, None, None],
}
TOXIC = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")


def toxic_file(folder: Path) -> Path:
    lines = [",".join(["comment_text", *TOXIC])]
    lines += [f"comment number {i},{','.join(str(int(i % (k + 2) == 0)) for k in range(6))}" for i in range(60)]
    path = folder / "toxic.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_it_fits_for_two_steps(name: str, tmp_path: Path, samples: Path) -> None:
    family = "distilbert" if "distilbert" in name else "bert"
    changes = [f"backbone.name={tiny_folder(tmp_path, family)}"]
    if "ulmfit" in name:
        changes = ["backbone.embedding_size=16", "backbone.hidden_size=24", "backbone.n_layers=2"]
    changes += [
        "trainer.max_steps=2",
        "logger=none",
        "data.max_length=32",
    ]
    if name in SAMPLES:
        text, label, file = SAMPLES[name]
        train = samples / file if file else toxic_file(tmp_path)
        changes += [f"data.train={train}", f"data.test={train}", "data.allow=[test_in_train]"]
        if text:
            changes += [f"data.text={text}", f"data.label={label}", "data.labels=[negative, positive]"]
    if load_recipe(name).values.language_model is not None:
        changes.append(f"language_model.train={train}")
    run = fit(name, out=tmp_path / "run", overrides=changes, echo=silent)
    assert json.loads((run.folder / "training.json").read_text())["total"] == 2
    own = run.folder / "language_model" / "training.json"
    assert own.is_file() == (load_recipe(name).values.language_model is not None)
    assert Bundle.load(run.bundle).labels


def test_every_recipe_was_seen(request: pytest.FixtureRequest) -> None:
    assert len(shipped_recipes()) == 12
    ran = [item for item in request.session.items if item.name.startswith("test_it_fits_for_two_steps[")]
    assert len(ran) in (0, 12)  # 0 when this test was asked for alone
