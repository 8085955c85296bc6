"""What the verbs answer, but for `check`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.cli_output.language_models import language_run_answer
from headrace.cli_output.shown import Answer, Part, Styled, Table, cut, many
from headrace.plugins import LANGUAGE_MODEL

if TYPE_CHECKING:
    from headrace.apply import Found, Predicted
    from headrace.compare import RunComparison
    from headrace.data.examples import Examples
    from headrace.demo import Demo
    from headrace.evaluation import Evaluation
    from headrace.explain import Explanation
    from headrace.export import Exported
    from headrace.predict import Prediction
    from headrace.train.fit import Run
    from headrace.train.seeds import SeedsRun

MAX_SHOWN_FINDINGS = 30
MAX_SHOWN_ROWS = 100


def recipes_answer(recipes: Mapping[str, str]) -> Answer:
    """Answer `recipes`."""
    return Answer(
        {"recipes": dict(recipes)},
        [
            Table(("recipe", "what it does"), list(recipes.items())),
            "`headrace recipes NAME` prints one; `base: NAME` in a recipe of yours starts from it",
        ],
    )


def run_answer(run: Run) -> Answer:
    """Answer `fit`."""
    if run.evaluation.task == LANGUAGE_MODEL:
        return language_run_answer(run)
    folder = Path(run.folder)
    value = {
        "run": str(folder),
        "bundle": str(run.bundle),
        "was_finished": run.was_finished,
        "evaluation": run.evaluation.as_dict(),
        "timing": dict(run.timing),
        "findings": list(run.findings),
    }
    return Answer(value, [str(run.evaluation), _places(folder, Path(run.bundle)), _next(Path(run.bundle))])


def _places(folder: Path, bundle: Path) -> str:
    places = [("run", folder), ("report", folder / "report.html"), ("worst errors", folder / "errors.csv")]
    return "\n".join(f"{name + ':':<13} {path}" for name, path in [*places, ("bundle", bundle)])


def _next(bundle: Path) -> str:
    return f"next: headrace predict {bundle} FILE -o predictions.csv"


def demo_answer(demo: Demo, texts: Sequence[str]) -> Answer:
    """Answer `demo`."""
    run = run_answer(demo.run)
    predictions = [{"text": text, **p.as_dict()} for text, p in zip(texts, demo.predictions, strict=True)]
    told = "it had been finished before: nothing was trained" if demo.run.was_finished else "fine-tuned MiniLM"
    rows = [(best_of(p), text) for text, p in zip(texts, demo.predictions, strict=True)]
    bundle = Path(demo.run.bundle)
    commands = [
        f"headrace predict {bundle} FILE -o predictions.csv   # your own texts, in a column `review`",
        "headrace new FILE                                    # a recipe for your own labelled texts",
    ]
    return Answer(
        {**run.value, "predictions": predictions},
        [
            told,
            *run.parts[:1],
            "three new texts:",
            Table(("prediction", "text"), rows),
            *run.parts[1:2],
            "next:\n  " + "\n  ".join(commands),
        ],
    )


def best_of(prediction: Prediction) -> str:
    """Return a prediction's label or labels with their scores."""
    if prediction.reason is not None:
        best = max(prediction.scores, key=lambda name: prediction.scores[name])
        return f"not sure ({best} {prediction.scores[best]:.2f})"
    names = [prediction.label] if prediction.label is not None else list(prediction.labels)
    return ", ".join(f"{name} {prediction.scores[name]:.2f}" for name in names) or "(no label)"


def evaluation_answer(evaluation: Evaluation, out: Path | None) -> Answer:
    """Answer `evaluate`."""
    places = [] if out is None else [f"figures:      {out / 'report.json'}\nworst errors: {out / 'errors.csv'}"]
    return Answer({"evaluation": evaluation.as_dict(), "out": out}, [str(evaluation), *places])


def predicted_answer(predicted: Predicted) -> Answer:
    """Answer `predict -o`: exit code 1 if rows could not be read."""
    parts = [f"{many(predicted.n_predicted, 'prediction')}: {predicted.out}"]
    if predicted.n_kept:
        parts.append(f"{predicted.n_kept:,} of them were scored by a call that did not end")
    parts += [f"{many(count, 'text')} flagged {flag!r}" for flag, count in sorted(predicted.n_flagged.items())]
    if predicted.n_bad_rows:
        parts.append(f"{many(predicted.n_bad_rows, 'row')} could not be read, with reasons: {predicted.errors}")
    return Answer(predicted.as_dict(), parts, exit_code=1 if predicted.n_bad_rows else 0)


def predictions_answer(found: Sequence[tuple[int, Prediction]], examples: Examples) -> Answer:
    """Answer `predict` without a file to write to: exit code 1 if rows could not be read."""
    bad = [{"where": b.where, "reason": b.reason} for b in examples.bad_rows]
    value = {
        "predictions": [{"row": row, **prediction.as_dict()} for row, prediction in found],
        "n_bad_rows": examples.n_bad_rows,
        "bad_rows": bad,
    }
    shown = found[:MAX_SHOWN_ROWS]
    texts = examples.texts(0, len(shown))
    rows = [(str(row), best_of(p), cut(text)) for (row, p), text in zip(shown, texts, strict=True)]
    parts: list[str | Table] = [Table(("row", "prediction", "text"), rows)]
    if len(found) > len(shown):
        parts.append(f"… and {len(found) - len(shown):,} more; -o FILE writes all of them")
    parts += [f"row left out: {b['where']}: {b['reason']}" for b in bad[:MAX_SHOWN_FINDINGS]]
    return Answer(value, parts, exit_code=1 if examples.n_bad_rows else 0)


def similar_answer(matches: Sequence[Found]) -> Answer:
    """Answer `similar`."""
    rows = [(f"{match.cosine:.4f}", str(match.row), cut(match.text)) for match in matches]
    return Answer({"matches": [asdict(match) for match in matches]}, [Table(("cosine", "row", "text"), rows)])


def explained_answer(explanation: Explanation, html: Path | None) -> Answer:
    """Answer `explain`."""
    from headrace.explain import as_styled

    places = [] if html is None else [f"page: {html}"]
    return Answer({**explanation.as_dict(), "html": html}, [Styled(as_styled(explanation)), *places])


def rate_answer(recipe: str, rate: float, plot: Path) -> Answer:
    """Answer `fit --find-lr`."""
    found = f"suggested learning rate: {rate:.2g}\nplot: {plot}"
    next_step = f"next: headrace fit {recipe} --set fit.learning_rate={rate:.2g}"
    return Answer({"learning_rate": rate, "plot": str(plot)}, [found, next_step])


def embedded_answer(out: Path, *, n_rows: int, width: int, pool: str) -> Answer:
    """Answer `embed`."""
    value = {"out": str(out), "n_rows": n_rows, "width": width, "pool": pool}
    of_tokens = " for each token" if pool == "none" else ""
    return Answer(value, [f"{many(n_rows, 'text')}, a vector of width {width}{of_tokens}: {out}"])


def exported_answer(exported: Exported) -> Answer:
    """Answer `export`."""
    value = {
        "out": exported.folder,
        "largest_difference": exported.largest_difference,
        "notes": list(exported.notes),
    }
    agreed = f"its logits differ from the bundle's by at most {exported.largest_difference:.2g}"
    return Answer(value, [f"written: {exported.folder}\n{agreed}", *(f"note: {note}" for note in exported.notes)])


def seeds_answer(run: SeedsRun) -> Answer:
    """Answer `fit --seeds`."""
    value = {"run": str(run.folder), "bundle": str(run.best.bundle), **run.as_dict()}
    return Answer(value, [str(run), _next(Path(run.best.bundle))])


def comparison_answer(comparison: RunComparison) -> Answer:
    """Answer `compare`."""
    parts: list[Part] = [f"{comparison.split}: {comparison.n_rows:,} rows, {comparison.task}"]
    parts.append(Table(*comparison.table()))
    labels = comparison.label_table()
    if labels is not None:
        parts.append(Table(*labels))
    return Answer(comparison.as_dict(), [*parts, *comparison.lines()])
