"""Fits a scikit-learn head on frozen features; the result is a plain linear layer, so no pickle is ever needed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from headrace.errors import ModelError
from headrace.head import Head, fit_classical
from headrace.predict import embed, score
from headrace.train.checkpoints import write_best
from headrace.train.prepare import Part
from headrace.train.resume import Progress
from headrace.train.stepped import derived_seed

if TYPE_CHECKING:
    import numpy as np

    from headrace.train.session import Session


def fit_classical_head(session: Session) -> None:
    """Compute the features of the training rows once, fit the head, and keep it as the run's best weights."""
    started = time.perf_counter()
    values, prepared, module = session.recipe, session.prepared, session.module
    model = module.model
    session.say(f"computing the features of {len(prepared.train):,} texts")
    features = _features(session, prepared.train)
    weight, bias = fit_classical(
        features,
        prepared.train.targets,
        name=values.head.name,
        multi_label=module.kind == "multi_label",
        seed=derived_seed(values.seed, "classical") % 2**32,
        n_labels=len(prepared.labels),
    )
    if not isinstance(model.head, Head):
        raise ModelError(f"the head {values.head.name} has no layer", where="head")
    model.head.set_output(weight, bias)
    seconds = time.perf_counter() - started
    logits = score(model, prepared.valid, **prepared.padding)
    module.valid_metrics = module.measure(torch.from_numpy(logits), torch.from_numpy(prepared.valid.targets))
    record: dict[str, Any] = {"epoch": 1, "step": 0, "seconds": seconds, "train_loss": None, "learning_rate": None}
    record |= {"valid": dict(module.valid_metrics), "train": {}}
    best = write_best(session.folder.checkpoints, model, value=module.valid_metrics["accuracy"], step=0, epoch=0)
    session.write_result(
        Progress(epoch=1, best=best, is_over=True, fit_s=seconds, n_texts=len(prepared.train), history=[record])
    )


def _features(session: Session, part: Part) -> np.ndarray:
    pool = session.recipe.head.pool
    return embed(session.module.model, part, **session.prepared.padding, pool=pool)
