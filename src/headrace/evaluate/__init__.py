"""From targets and scores to an Evaluation."""

from headrace.evaluate.measure import bootstrapped, evaluate, mean_interval, monitor_value
from headrace.evaluation import Evaluation, Interval
from headrace.metrics import METRICS

__all__ = ["METRICS", "Evaluation", "Interval", "bootstrapped", "evaluate", "mean_interval", "monitor_value"]
