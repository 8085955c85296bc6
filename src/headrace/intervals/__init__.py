"""95 % intervals: each kind of number with the method that covers the truth 95 times of 100 in our simulations.

Shares of rows get Wilson's; means over rows, ROC AUCs and average precisions an interval from their rows' influence
values, with the skew taken out; F1 and everything else the bootstrap over rows. `benchmarks/interval_coverage.py` simulates each kind.
"""

from headrace.intervals.influence import (
    Area,
    average_precision_influence,
    f1_influence,
    mean_area,
    mean_influence,
)
from headrace.intervals.resampling import (
    MIN_RESAMPLES,
    RANKING_CELLS,
    Resampled,
    counts_of,
    ranked_resamples,
    resample,
    resample_metric,
    resampled_rows,
)
from headrace.intervals.spans import (
    BOOTSTRAP,
    DELONG,
    HALL,
    MIN_ROWS,
    MIN_ROWS_IN_MACRO,
    NORMAL_QUANTILE,
    TAILS,
    WILSON,
    corrected_percentiles,
    hall,
    percentiles,
    t_quantile,
    wilson,
)

__all__ = [
    "BOOTSTRAP",
    "DELONG",
    "HALL",
    "MIN_RESAMPLES",
    "MIN_ROWS",
    "MIN_ROWS_IN_MACRO",
    "NORMAL_QUANTILE",
    "RANKING_CELLS",
    "TAILS",
    "WILSON",
    "Area",
    "Resampled",
    "average_precision_influence",
    "corrected_percentiles",
    "counts_of",
    "f1_influence",
    "hall",
    "mean_area",
    "mean_influence",
    "percentiles",
    "ranked_resamples",
    "resample",
    "resample_metric",
    "resampled_rows",
    "t_quantile",
    "wilson",
]
