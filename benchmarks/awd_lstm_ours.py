"""Our side of `awd_lstm.py`: batches of real reviews, and training steps as Headrace takes them."""

from __future__ import annotations

import gzip
import json
import random
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headrace import matmul
from headrace.backbones._awd_layers import CLASSIFIER, LANGUAGE_MODEL, Dropouts, Sizes
from headrace.backbones._next_word import NextWordModel
from headrace.backbones.awd_lstm import AwdLstm
from headrace.classifier import Classifier
from headrace.data.examples import LabelSet
from headrace.head import HeadSettings
from headrace.pages import keep_pages
from headrace.text.batch import Batch
from headrace.text.vocabulary import Vocabulary
from headrace.text.words import Words
from headrace.train.module import ClassifierModule
from headrace.train.stages import Stage, build_optimizer, set_rates

LONG = 1_000_000
BATCH_TEXTS, EVEN_TOKENS = 16, 288
# fastai's loader sorts by length among 50 batches at a time.
WINDOW = 50 * BATCH_TEXTS
CLASSIFIER_KINDS = ("even", "sorted", "random")
PAD_ID = 1


@dataclass(frozen=True)
class Reviews:
    """Reviews as ids, and whether each is positive."""

    ids: list[list[int]]
    targets: list[int]


def read_reviews(folder: Path, n: int, n_words: int, seed: int) -> Reviews:
    """Return n reviews of the training half, drawn at random, in ids below n_words."""
    with gzip.open(folder / "imdb" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = random.Random(seed).sample([json.loads(line) for line in file], n)
    texts = [str(row["text"]) for row in rows]
    words = Words(Vocabulary.of(texts, max_size=n_words - 8, min_count=1))  # a filling of at most 8 comes on top
    ids = [encoded.ids.tolist() for encoded in words.encode(texts, max_length=LONG)]
    return Reviews(ids, [int(str(row["label"]) in ("1", "pos", "positive")) for row in rows])


def language_batches(reviews: Reviews, n: int, *, streams: int, tokens: int) -> list[list[list[int]]]:
    """Return n steps of streams of joined reviews, each [streams, tokens + 1]: a step goes on where the last ended."""
    joined = np.concatenate([np.asarray(ids) for ids in reviews.ids])
    length = (len(joined) - 1) // streams
    if length < n * tokens:
        raise ValueError(f"{len(joined)} tokens are too few for {n} steps of {streams} x {tokens}")
    first = np.arange(streams)[:, None] * length + np.arange(tokens + 1)
    return [joined[first + step * tokens].tolist() for step in range(n)]


def classifier_batches(reviews: Reviews, kind: str, n: int) -> list[tuple[list[list[int]], list[int]]]:
    """Return n batches of 16 texts (ids, targets); see the top of this file for the kinds."""
    lengths = [len(ids) for ids in reviews.ids]
    places = list(range(len(lengths)))
    if kind == "even":
        places = [place for place in places if lengths[place] >= EVEN_TOKENS]
        starts = [BATCH_TEXTS * number for number in range(n)]
    elif kind == "sorted":
        places = sorted(places[:WINDOW], key=lambda place: -lengths[place])
        n_all = len(places) // BATCH_TEXTS
        starts = [BATCH_TEXTS * int((number + 0.5) * n_all / n) for number in range(n)]  # spread over all lengths
    else:
        starts = [BATCH_TEXTS * number for number in range(n)]
    if not starts or starts[-1] + BATCH_TEXTS > len(places):
        raise ValueError(f"{len(places)} texts are too few for {n} batches of the kind {kind}")
    limit = EVEN_TOKENS if kind == "even" else LONG
    chosen = [places[start : start + BATCH_TEXTS] for start in starts]
    return [([reviews.ids[p][:limit] for p in batch], [reviews.targets[p] for p in batch]) for batch in chosen]


def collated(texts: list[list[int]], targets: list[int], pad_id: int) -> Batch:
    """Return a batch of ours, padded at the right to the longest text."""
    longest = max(map(len, texts))
    ids = torch.tensor([text + [pad_id] * (longest - len(text)) for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
    return Batch(ids, mask, None, torch.arange(len(texts)), torch.tensor(targets))


class Ours:
    """Training steps of ours.

    Args:
        work: Sizes, settings and batches, as the worker gets them.
        precision: `fp32` or `bf16`.
    """

    def __init__(self, work: dict[str, Any], precision: str) -> None:
        self.work, self.precision = work, precision
        keep_pages()  # as `fit` does
        rate = work["learning_rate"]
        self.stage = Stage(optimizer="adam", learning_rate=rate, schedule="constant", warmup=0.0)
        self.n_steps = 0
        torch.manual_seed(work["seed"])
        self.model: Any = None

    def backbone(self, dropouts: Dropouts, drop_mult: float) -> AwdLstm:
        """Return an encoder with random weights."""
        sizes = Sizes(**self.work["sizes"])
        backbone = AwdLstm(self.work["n_words"], sizes=sizes, dropouts=dropouts.times(drop_mult))
        backbone.train_on_cpu()
        return backbone

    def learns(self, model: Any) -> None:
        """Take a model to be trained."""
        self.model = model.train()
        self.optimizer = build_optimizer(model.groups(), self.stage)

    def context(self) -> AbstractContextManager[Any]:
        """Return the context in which `fit` runs a whole step at this precision."""
        if self.precision == "bf16":
            return torch.autocast("cpu", torch.bfloat16)
        return matmul.routed(matmul.fastest_route())

    def step(self, gradients: Callable[[], Tensor]) -> tuple[float, float, float]:
        """Take one step; return seconds, processor seconds and the loss.

        Args:
            gradients: Computes the gradients and returns the loss.
        """
        begun = time.perf_counter(), time.process_time()
        with self.context():
            set_rates(self.optimizer, self.stage, self.n_steps, n_steps=1_000_000, n_warmup=0)
            self.optimizer.zero_grad()
            loss = gradients()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.work["clip"])
            self.optimizer.step()
        found = float(loss)
        self.n_steps += 1
        return time.perf_counter() - begun[0], time.process_time() - begun[1], found


class OurLanguageModel(Ours):
    """Steps of a language model; the state of the streams goes from one to the next."""

    def __init__(self, work: dict[str, Any], precision: str) -> None:
        super().__init__(work, precision)
        self.learns(NextWordModel(self.backbone(LANGUAGE_MODEL, work["drop_mult"]["language_model"])))
        steps = [torch.tensor(step) for step in work["batches"]["language_model"]]
        self.batches = [(ids[:, :-1].contiguous(), ids[:, 1:].contiguous()) for ids in steps]
        self.state = self.model.initial_state(len(steps[0]))

    def take(self, kind: str, number: int) -> tuple[float, float, float]:
        """Take a step on one batch."""
        inputs, targets = self.batches[number]

        def gradients() -> Tensor:
            found = self.model.learn(inputs, targets, self.state)
            (found.loss + found.penalty).backward()
            self.state = found.state
            loss: Tensor = found.loss.detach()
            return loss

        return self.step(gradients)


class OurClassifier(Ours):
    """Steps of a classifier with the head `ulmfit`."""

    def __init__(self, work: dict[str, Any], precision: str) -> None:
        super().__init__(work, precision)
        drop_mult = work["drop_mult"]["classifier"]
        head = HeadSettings("ulmfit", dropout=CLASSIFIER.output * drop_mult)
        labels = LabelSet(("negative", "positive"))
        backbone = self.backbone(CLASSIFIER, drop_mult)
        model = Classifier(backbone, settings=head, labels=labels, multi_label=False)
        self.module = ClassifierModule(model, labels.names)
        self.learns(self.module.model)
        self.batches = {
            kind: [collated(texts, targets, pad_id=PAD_ID) for texts, targets in work["batches"][kind]]
            for kind in CLASSIFIER_KINDS
        }

    def take(self, kind: str, number: int) -> tuple[float, float, float]:
        """Take a step on one batch of a kind."""
        batch = self.batches[kind][number]

        def gradients() -> Tensor:
            loss = self.module.losses(self.module(batch), batch).mean()
            loss.backward()
            return loss.detach()

        return self.step(gradients)


def tokens_of(work: dict[str, Any], kind: str) -> float:
    """Return the mean number of real tokens of a batch."""
    if kind == "language_model":
        step = work["batches"][kind][0]
        return float(len(step) * (len(step[0]) - 1))
    return statistics.mean(sum(map(len, texts)) for texts, _ in work["batches"][kind])
