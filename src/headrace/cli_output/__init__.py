"""What the verbs answer, as text for a person or as one JSON object for a program."""

from headrace.cli_output.answers import (
    comparison_answer,
    demo_answer,
    embedded_answer,
    evaluation_answer,
    explained_answer,
    exported_answer,
    predicted_answer,
    predictions_answer,
    rate_answer,
    recipes_answer,
    run_answer,
    seeds_answer,
    similar_answer,
)
from headrace.cli_output.checks import check_answer
from headrace.cli_output.language_models import generated_answer
from headrace.cli_output.shown import (
    Answer,
    Table,
    as_typed,
    counted,
    printable,
    show,
    show_error,
    to_stderr,
    write_json_line,
)

__all__ = [
    "Answer",
    "Table",
    "as_typed",
    "check_answer",
    "comparison_answer",
    "counted",
    "demo_answer",
    "embedded_answer",
    "evaluation_answer",
    "explained_answer",
    "exported_answer",
    "generated_answer",
    "predicted_answer",
    "predictions_answer",
    "printable",
    "rate_answer",
    "recipes_answer",
    "run_answer",
    "seeds_answer",
    "show",
    "show_error",
    "similar_answer",
    "to_stderr",
    "write_json_line",
]
