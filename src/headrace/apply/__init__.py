"""Applies a bundle to a file: predictions, an evaluation, vectors, the documents nearest to a query."""

from headrace.apply.evaluation import evaluate, with_label_columns
from headrace.apply.predictions import Predicted, partial_folder, predict_file, predict_rows
from headrace.apply.vectors import Found, embed_file, similar_in_file
from headrace.apply.where import Where

__all__ = [
    "Found",
    "Predicted",
    "Where",
    "embed_file",
    "evaluate",
    "partial_folder",
    "predict_file",
    "predict_rows",
    "similar_in_file",
    "with_label_columns",
]
