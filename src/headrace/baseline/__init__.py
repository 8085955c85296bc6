"""TF-IDF + logistic regression beside every run: what the language model must beat, in seconds."""

from headrace.baseline.fit import Baseline, baseline_rows, fit_baseline
from headrace.baseline.majority import majority

__all__ = ["Baseline", "baseline_rows", "fit_baseline", "majority"]
