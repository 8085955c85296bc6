"""The first run: fine-tunes the packaged MiniLM on a shipped sample and predicts three new texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headrace.bundle import Bundle
from headrace.predict import Prediction
from headrace.train.fit import Run, fit

#: Written for the demo; neither text is in the sample.
TEXTS = (
    "The kettle boils in a minute, pours without a drip and has survived two house moves. I would buy it again.",
    "Three emails, two phone calls, and the replacement they finally sent has the same crack in the same place.",
    "I expected little of the campsite and got a lake at sunrise, hot showers and a warden who lent us his stove.",
)


@dataclass(frozen=True)
class Demo:
    """What the demo did.

    Attributes:
        run: The finished run.
        predictions: One for each of `TEXTS`.
    """

    run: Run
    predictions: tuple[Prediction, ...]


def demo(out: str | Path = "runs/demo") -> Demo:
    """Fit the demo's recipe and predict `TEXTS`; a run that is finished is not trained again.

    Raises:
        HeadraceError: The packaged MiniLM is not installed, or the folder holds something else.
    """
    run = fit("demo", out=out)
    return Demo(run, tuple(Bundle.load(run.bundle).predict(list(TEXTS))))
