"""Which of two classifiers is better, and how sure that is."""

from headrace.compare.paired import Paired
from headrace.compare.scores import compare_scores
from headrace.compare.side_by_side import Contestant, RunComparison, compare, compare_runs
from headrace.compare.verdict import Comparison

__all__ = ["Comparison", "Contestant", "Paired", "RunComparison", "compare", "compare_runs", "compare_scores"]
