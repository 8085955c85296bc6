"""The forecast at the start of a fit: said once, kept for the report, and kept for the next run of the very same."""

from __future__ import annotations

import json
import logging
import os
import platform
from pathlib import Path
from typing import Any

import torch

from headrace.bundle.about import versions
from headrace.files import sha256_of, write_json
from headrace.recipe.places import flat
from headrace.train.forecast import FIT_SHARE, forecast, memory_words
from headrace.train.progress import duration
from headrace.train.session import Session
from headrace.train.standing import FORECAST, identity

logger = logging.getLogger(__name__)


def foretold(session: Session) -> dict[str, Any]:
    """Say what the training will cost, and keep it for the report; a run that goes on has its first forecast.

    Returns:
        What `Forecast.as_dict` gives: the figures, or `reason`, why there are none.
    """
    own = session.folder.path / FORECAST
    kept = _read(own)
    is_begun = session.result() is not None or bool(list(session.folder.checkpoints.glob("*.ckpt")))
    if kept is not None and (is_begun or kept["fit_s"] is not None):
        return kept
    if is_begun:
        return {"fit_s": None, "wall_s": None, "reason": "the run was begun without one"}
    known = _place(session)
    again = _read(known)
    if again is not None:  # the same training on the same machine: a probe would say the same
        session.say(f"forecast: about {duration(again['wall_s'] or again['fit_s'])}, as told before")
        write_json(own, again)
        return again
    found = forecast(session.recipe, session.prepared, max_share=FIT_SHARE, packs=session.packs)
    write_json(own, found.as_dict())
    if found.fit_s is None or found.peak_memory_bytes is None:
        logger.debug("no forecast: %s", found.reason)  # the report has it; a line in each short run would be noise
        return found.as_dict()
    session.say(f"forecast: about {duration(found.wall_s or found.fit_s)}, {memory_words(found.as_dict())}")
    known.parent.mkdir(parents=True, exist_ok=True)
    write_json(known, found.as_dict())
    return found.as_dict()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: Any = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict) or not {"fit_s", "wall_s"} <= found.keys():
            raise ValueError("it is no forecast")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("the forecast %s cannot be read (%s): made anew", path, error)
        return None
    return found


def _place(session: Session) -> Path:
    """Return where the forecast of such a training on such a machine is kept."""
    values = session.recipe
    what = identity(values, session.prepared.fingerprints(), session.initial_sha256)
    # These move no weight, and so are no part of a run's identity; but they say how long it takes.
    costs = (sorted(map(repr, flat(values.trainer).items())), [phase.checkpoint_every_s for phase in values.fit.phases])
    machine = (platform.node(), platform.processor(), os.cpu_count(), torch.get_num_threads())
    parts = (sorted(what.items()), costs, values.logger, machine, sorted(versions().items()))
    return session.cache / "forecasts" / f"{sha256_of(*map(repr, parts))}.json"
