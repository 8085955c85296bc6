"""The other side of `awd_lstm.py`: runs in fastai's environment and takes one training step for each line it is sent.

    python benchmarks/fastai_awd_lstm.py WORK.json language_model|classifier

WORK.json holds sizes, settings and batches. A line on standard input names a batch; fastai's own training loop, with the
callbacks that its learners come with, takes one step on it, and the answer is one JSON line: seconds, processor seconds,
and the loss. The clocks run from the moment at which the batch is at hand to the end of all callbacks of the step.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.training import GradientClip
from fastai.data.core import DataLoaders
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import Adam
from fastai.text.data import pad_chunk
from fastai.text.learner import TextLearner, language_model_learner
from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_clas_config, awd_lstm_clas_split, awd_lstm_lm_config
from fastai.text.models.core import get_text_classifier
from torch import Tensor

Batch = tuple[Tensor, Tensor]


class Asked:
    """Batches in the order in which standard input asks for them, each made before it is asked for."""

    def __init__(self, batches: dict[str, list[Batch]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return 1_000_000  # nobody knows: the schedule only needs a number

    def __iter__(self) -> Iterator[Batch]:
        for line in sys.stdin:
            request = json.loads(line)
            yield self.batches[request["kind"]][request["number"]]
        raise CancelFitException


class Begin(Callback):
    """Starts the clocks before any other callback."""

    order = -1000

    def before_batch(self) -> None:
        self.learn.begun = time.perf_counter(), time.process_time()


class End(Callback):
    """Stops the clocks after every other callback, and answers."""

    order = 1000

    def after_batch(self) -> None:
        wall, computing = self.learn.begun
        seconds = time.perf_counter() - wall, time.process_time() - computing
        print(json.dumps([*seconds, float(self.learn.loss.detach())]), file=answers, flush=True)


def language_model(work: dict[str, Any]) -> Any:
    """Return the learner that `language_model_learner` gives, without weights."""
    steps = [torch.tensor(step) for step in work["batches"]["language_model"]]
    batches: list[Batch] = [(ids[:, :-1].contiguous(), ids[:, 1:].contiguous()) for ids in steps]
    loaders = loaders_of({"language_model": batches}, work["n_words"])
    config = {**awd_lstm_lm_config, **sizes_of(work)}
    drop_mult = work["drop_mult"]["language_model"]
    return language_model_learner(
        loaders, AWD_LSTM, config=config, drop_mult=drop_mult, pretrained=False, **settings(work)
    )


def classifier(work: dict[str, Any]) -> Any:
    """Return a learner as `text_classifier_learner` makes it, but with AR and TAR off: ours has none for a classifier."""
    batches = {
        kind: [padded(texts, targets) for texts, targets in found]
        for kind, found in work["batches"].items()
        if kind != "language_model"
    }
    drop_mult = work["drop_mult"]["classifier"]
    config = {**awd_lstm_clas_config, **sizes_of(work)}
    model = get_text_classifier(AWD_LSTM, work["n_words"], 2, config=config, drop_mult=drop_mult)
    loaders = loaders_of(batches, work["n_words"])
    parts = {"loss_func": CrossEntropyLossFlat(), "splitter": awd_lstm_clas_split, "alpha": 0.0, "beta": 0.0}
    return TextLearner(loaders, model, **parts, **settings(work))


def sizes_of(work: dict[str, Any]) -> dict[str, int]:
    """Return the sizes under fastai's names."""
    sizes = work["sizes"]
    return {"emb_sz": sizes["embedding_size"], "n_hid": sizes["hidden_size"], "n_layers": sizes["n_layers"]}


def settings(work: dict[str, Any]) -> dict[str, Any]:
    """Return optimizer, clipping and the clocks; what is not said is as fastai has it."""
    optimizer = partial(Adam, sqr_mom=0.999, eps=1e-8)
    return {"opt_func": optimizer, "wd": 0.0, "cbs": [GradientClip(work["clip"]), Begin(), End()]}


def loaders_of(batches: dict[str, list[Batch]], n_words: int) -> Any:
    """Return what a learner takes for its data: the batches that are asked for, and as many words."""
    loaders = DataLoaders(Asked(batches), [], device=torch.device("cpu"))
    loaders.vocab = [f"word {number}" for number in range(n_words)]
    return loaders


def padded(texts: list[list[int]], targets: list[int]) -> Batch:
    """Return a batch as fastai's classifier loader pads it: in front, in whole chunks; the longest text first."""
    order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
    longest = max(map(len, texts))
    rows = [pad_chunk(torch.tensor(texts[place]), pad_len=longest) for place in order]
    return torch.stack(rows), torch.tensor([targets[place] for place in order])


def main() -> int:
    work = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(work["threads"])
    torch.manual_seed(work["seed"])
    names = ("fastai", "torch")
    print(json.dumps({f"peer_{name}": importlib.metadata.version(name) for name in names}), file=answers, flush=True)
    learner = (language_model if sys.argv[2] == "language_model" else classifier)(work)
    learner.logger = lambda *_: None
    with learner.no_bar():
        learner.fit(1, lr=work["learning_rate"])
    return 0


if __name__ == "__main__":
    # what fastai prints must not stand among the answers
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdout = sys.stderr
    sys.exit(main())
