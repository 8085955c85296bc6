"""From targets and scores to an Evaluation."""

from headrace.evaluate.measure import evaluate, monitor_value
from headrace.evaluation import Evaluation, Interval
from headrace.metrics import METRICS

__all__ = ["METRICS", "Evaluation", "Interval", "evaluate", "monitor_value"]
