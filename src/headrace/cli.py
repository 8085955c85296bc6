"""The verbs: they read the arguments, call one function each, and show its answer; torch is imported when needed."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli_output import (
    Answer,
    as_typed,
    check_answer,
    comparison_answer,
    counted,
    demo_answer,
    embedded_answer,
    evaluation_answer,
    explained_answer,
    exported_answer,
    generated_answer,
    predicted_answer,
    predictions_answer,
    rate_answer,
    recipes_answer,
    run_answer,
    seeds_answer,
    show,
    show_error,
    similar_answer,
    to_stderr,
    write_json_line,
)
from headrace.errors import HeadraceError, RecipeError, suggestion
from headrace.pages import keep_pages

OUR_FAULT = 3
MENDABLE = 2

app = typer.Typer(
    name="headrace",
    help="Labelled text in; a fine-tuned classifier that you can trust, and run anywhere, out.",
    epilog="Exit codes: 0 good · 1 findings · 2 you can mend it · 3 our fault · 130/143 interrupted, state saved.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on the output, and nothing else there.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as fit.epochs=5; may repeat."),
]
RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped recipe.")]
BundleFolder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder, such as runs/demo/bundle.")]
Threshold = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[LABEL=]NUMBER", help="From which score on a label is given, or is the answer of two; may repeat."
    ),
]
Pair = Annotated[str | None, typer.Option(help="The second text, for a bundle of pairs.")]
POOLS = "From token vectors to one: mean, cls, max, concat (last, max and mean) or pooler"
Pool = Annotated[str, typer.Option(help=f"{POOLS}.")]
Device = Annotated[str, typer.Option(help="auto (an accelerator if there is one), cpu, or such as cuda:0.")]
Precision = Annotated[str, typer.Option(help="fp32, or bf16: faster where the processor has it, scores move by 0.01.")]
DataFile = Annotated[str, typer.Argument(metavar="FILE", help=".csv .tsv .jsonl .parquet (also .gz).")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb and end the process with its exit code."""
    keep_pages()
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: Sequence[str]) -> int:
    """Run one verb, show its answer or its error, and return the exit code."""
    as_json = "--json" in arguments
    stdout = sys.stdout
    try:
        # Whatever a library prints must not stand between a program and the one JSON object.
        with redirect_stdout(sys.stderr if as_json else stdout):
            answer = app(args=list(arguments), prog_name="headrace", standalone_mode=False)
        if not isinstance(answer, Answer):  # --help and --version have written what they say
            return int(answer or 0)
        show(answer, as_json=as_json, stream=stdout)
        return answer.exit_code
    except HeadraceError as error:
        show_error(error, as_json=as_json, stdout=stdout, stderr=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("interrupted\n")
        return 130
    except BrokenPipeError:
        # The reader has gone (`| head`); Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001  (the last place before the user)
        return _unexpected(error, as_json=as_json, stdout=stdout)


def _unexpected(error: Exception, *, as_json: bool, stdout: Any) -> int:
    usage = getattr(error, "format_message", None)  # click's errors; typer brings its own copy of click or not
    if usage is not None:
        if as_json:
            write_json_line({"error": "UsageError", "what": usage(), "where": None, "next": "headrace --help"}, stdout)
        else:
            error.show()  # type: ignore[attr-defined]
        return MENDABLE
    traceback.print_exc(file=sys.stderr)
    sys.stderr.write("\nThis is a fault of Headrace, not yours. Please report it, with the lines above.\n")
    if as_json:
        what = f"{type(error).__name__}: {error}"
        write_json_line(
            {"error": "InternalError", "what": what, "where": None, "next": "report it, with the lines above"}, stdout
        )
    return OUR_FAULT


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"headrace {version('headrace')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The run's folder.")] = Path("runs/demo"), json: Json = False
) -> Answer:
    """Fine-tune the installed MiniLM on a shipped sample, report, and predict three new texts."""
    to_stderr("loading")
    from headrace.demo import TEXTS
    from headrace.demo import demo as fit_demo

    return demo_answer(fit_demo(out), TEXTS)


@app.command()
def new(
    file: DataFile,
    out: Annotated[Path, typer.Option(help="The recipe to write.")] = Path("recipe.yaml"),
    task: Annotated[str | None, typer.Option(help="single_label or multi_label, instead of the guess.")] = None,
    json: Json = False,
) -> Answer:
    """Look at a data file, guess columns and task, and write a commented recipe."""
    from headrace.new import new as write_recipe

    found = write_recipe(file, out=out, task=task)
    text = out.read_text("utf-8")
    return Answer({"recipe": str(out), **found.as_dict()}, [text, f"written to {out}; next: headrace check {out}"])


@app.command()
def recipes(name: Annotated[str | None, typer.Argument(help="Print this one.")] = None, json: Json = False) -> Answer:
    """List the shipped recipes, or print one."""
    from headrace.recipe import shipped_recipe, shipped_recipes

    if name is None:
        return recipes_answer(shipped_recipes())
    text = shipped_recipe(name)
    return Answer({"name": name, "recipe": text}, [text.rstrip()])


@app.command()
def check(
    recipe: RecipeName,
    set: Set = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="Also show the training rows that are most likely mislabelled.")
    ] = False,
    forecast: Annotated[
        bool, typer.Option("--forecast/--no-forecast", help="Forecast time and memory from a probe of some seconds.")
    ] = True,
    json: Json = False,
) -> Answer:
    """Check a recipe and its data: faults, counts, lengths, findings, a shown batch; trains nothing."""
    from headrace.check import check as look
    from headrace.train.fit import telling

    found = look(recipe, overrides=set or (), labels=labels, forecast=forecast, progress=telling(to_stderr))
    return check_answer(found, recipe=as_typed(recipe, set))


@app.command()
def fit(
    recipe: RecipeName,
    set: Set = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/RECIPE if not given.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Start anew in another run's folder; an equal language model in it is kept.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop with exit code 1 if the data have findings.")] = False,
    seeds: Annotated[
        int | None, typer.Option(min=2, help="Train so many seeds, from the recipe's on; one run each in seed-N/.")
    ] = None,
    find_lr: Annotated[bool, typer.Option("--find-lr", help="Suggest a learning rate, plot it; no training.")] = False,
    json: Json = False,
) -> Answer:
    """Train, evaluate and write a proved bundle; run again after any interruption, it goes on where it was."""
    from headrace.recipe import load_recipe
    from headrace.train.fit import fit as train

    loaded = load_recipe(recipe, overrides=set or ())
    if find_lr:
        from headrace.train.find_lr import find_lr as try_rates

        return rate_answer(as_typed(recipe, set), *try_rates(loaded, out=out))
    if seeds is not None:
        from headrace.train.seeds import fit_seeds

        return seeds_answer(fit_seeds(loaded, seeds, out=out, force=force, strict=strict))
    return run_answer(train(loaded, out=out, force=force, strict=strict))


@app.command()
def evaluate(
    bundle: BundleFolder,
    file: DataFile,
    out: Annotated[Path | None, typer.Option(help="A folder for report.json and errors.csv.")] = None,
    threshold: Threshold = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    json: Json = False,
) -> Answer:
    """Score labelled texts with a bundle: metrics with intervals."""
    from headrace.apply import evaluate as evaluate_file
    from headrace.predict import read_threshold

    limits = read_threshold(threshold)
    told = counted("scored")
    return evaluation_answer(
        evaluate_file(bundle, file, out=out, threshold=limits, progress=told, device=device, precision=precision), out
    )


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN…", help="Folders of runs, or of several seeds.")],
    metric: Annotated[str | None, typer.Option(help="What the verdict is about, such as f1_macro.")] = None,
    against: Annotated[str, typer.Option(help="The reference: first or best.")] = "first",
    json: Json = False,
) -> Answer:
    """Say which of two or more runs is better on the same rows, and how sure that is."""
    from headrace.compare import compare as compare_runs

    return comparison_answer(compare_runs(*runs, metric=metric, against=against))


@app.command()
def predict(
    bundle: BundleFolder,
    file: Annotated[
        str, typer.Argument(metavar="FILE|-", help="A data file, or - for lines or JSON lines from a pipe.")
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help=".csv .tsv .jsonl .parquet; on the output if not given.")
    ] = None,
    threshold: Threshold = None,
    raw: Annotated[bool, typer.Option("--raw", help="CSV without the guard against spreadsheet formulas.")] = False,
    device: Device = "auto",
    precision: Precision = "fp32",
    json: Json = False,
) -> Answer:
    """Predict the texts of a file, in its order; run again after any interruption, it goes on where it was."""
    from headrace.apply import Where, partial_folder, predict_file, predict_rows
    from headrace.bundle import Bundle
    from headrace.predict import read_threshold
    from headrace.sources import piped

    limits, loaded = read_threshold(threshold), Bundle.load(bundle)
    where: Where = {"device": device, "precision": precision}
    with piped(sys.stdin.buffer, loaded) if file == "-" else nullcontext(file) as source:
        if out is None:
            return predictions_answer(*predict_rows(loaded, source, threshold=limits, **where))
        progress = counted("predicted")
        try:
            found = predict_file(loaded, source, out, threshold=limits, raw=raw, progress=progress, **where)
        except KeyboardInterrupt:
            if partial_folder(out).exists():
                to_stderr(f"what was scored is kept in {partial_folder(out)}: the same command goes on there")
            raise
        return predicted_answer(found)


@app.command()
def embed(
    bundle: BundleFolder,
    file: DataFile,
    out: Annotated[Path, typer.Option("-o", "--out", help=".npy or .parquet")],
    pool: Annotated[str, typer.Option(help=f"{POOLS}; none (.parquet): a vector for each token.")] = "mean",
    device: Device = "auto",
    precision: Precision = "fp32",
    json: Json = False,
) -> Answer:
    """Write a vector of the last hidden layer for each text of a file, or for each token."""
    from headrace.apply import Where, embed_file

    where: Where = {"device": device, "precision": precision}
    n_rows, width = embed_file(bundle, file, out, pool=pool, progress=counted("embedded"), **where)
    return embedded_answer(out, n_rows=n_rows, width=width, pool=pool)


@app.command()
def similar(
    bundle: BundleFolder,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="A text.")],
    file: DataFile,
    pair: Pair = None,
    top: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    pool: Pool = "mean",
    device: Device = "auto",
    precision: Precision = "fp32",
    json: Json = False,
) -> Answer:
    """Show the texts of a file that are nearest to a query."""
    from headrace.apply import Where, similar_in_file

    where: Where = {"device": device, "precision": precision}
    sought = query if pair is None else (query, pair)
    return similar_answer(similar_in_file(bundle, sought, file, top=top, pool=pool, **where))


@app.command()
def explain(
    bundle: BundleFolder,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="A text.")],
    pair: Pair = None,
    label: Annotated[str | None, typer.Option(help="The label to explain, instead of the predicted one.")] = None,
    html: Annotated[Path | None, typer.Option(help="A page to write that shows it.")] = None,
    json: Json = False,
) -> Answer:
    """Show how much each word of a text moved the answer."""
    from headrace.bundle import Bundle
    from headrace.explain import as_html
    from headrace.files import write_text

    explanation = Bundle.load(bundle).explain(text if pair is None else (text, pair), label)
    if html is not None:
        write_text(html, as_html(explanation))
    return explained_answer(explanation, html)


@app.command()
def generate(
    bundle: BundleFolder,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The beginning; may be empty.")],
    words: Annotated[int, typer.Option(min=1, help="Words and signs to add.")] = 40,
    n: Annotated[int, typer.Option("--n", min=1, help="How many texts.")] = 1,
    temperature: Annotated[float, typer.Option(min=0.0, help="Lower is likelier; 0 takes the likeliest word.")] = 0.75,
    top_k: Annotated[int | None, typer.Option(min=1, help="Draw among so many of the likeliest words.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw among the likeliest words with this probability.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same texts.")] = None,
    json: Json = False,
) -> Answer:
    """Let a language model of next words go on with a text."""
    from headrace.bundle import LanguageModelBundle

    texts = LanguageModelBundle.load(bundle).generate(
        text, words=words, n=n, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
    )
    return generated_answer(text, texts)


@app.command()
def export(
    bundle: BundleFolder,
    to: Annotated[str, typer.Option("--to", help="transformers")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A folder; BUNDLE-transformers if not given.")] = None,
    json: Json = False,
) -> Answer:
    """Write a bundle as a folder that transformers' pipeline opens, with equal logits."""
    from headrace.bundle import Bundle
    from headrace.export import to_transformers

    if to != "transformers":
        raise RecipeError(f"there is no export to {to!r}", where="--to", next=suggestion(to, ["transformers"]))
    return exported_answer(
        to_transformers(Bundle.load(bundle), out or bundle.with_name(f"{bundle.resolve().name}-{to}"))
    )
