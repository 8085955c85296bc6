"""Logits whose true probabilities are known, and the true risk of an abstention."""

import numpy as np

from headrace.data.examples import LabelSet
from headrace.decide.calibration import sigmoid, softmax

AB = LabelSet(("a", "b"))
ABC = LabelSet(("a", "b", "c"))
SIX = LabelSet(tuple("uvwxyz"))
BASE = np.array([0.0, -1.0, -2.0, -3.0, -4.0, -5.0])


def single(n_rows, *, n_labels=3, temperature=1.0, seed=0, spread=2.0):
    """Return float32 logits that are `temperature` times those of the truth, and the drawn labels."""
    random = np.random.default_rng(seed)
    true = random.normal(0, spread, (n_rows, n_labels))
    drawn = (softmax(true).cumsum(axis=1) > random.random((n_rows, 1))).argmax(axis=1)
    return (temperature * true).astype(np.float32), drawn


def multi(n_rows, *, slope=1.0, shift=0.0, seed=0, base=BASE, spread=2.5):
    """Return float32 logits `slope` x truth + `shift`, and the drawn 0/1 labels."""
    random = np.random.default_rng(seed)
    true = random.normal(0, spread, (n_rows, len(base))) + base
    drawn = (random.random(true.shape) < sigmoid(true)).astype(np.int64)
    return (slope * true + shift).astype(np.float32), drawn
