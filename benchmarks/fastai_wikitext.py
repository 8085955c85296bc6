"""The other side of `wikitext.py`: runs in fastai's environment and trains its language model once it is asked.

    python benchmarks/fastai_wikitext.py WORK.json

WORK.json holds ids, sizes and settings. A line on standard input names the settings (`same` or `own`); the answer is one
JSON line: perplexity and accuracy after each epoch, over all validation tokens alike, and the seconds of training.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.callback.schedule import Learner  # noqa: F401  # gives every learner its `fit_one_cycle`
from fastai.callback.training import GradientClip
from fastai.data.core import DataLoaders
from fastai.optimizer import Adam
from fastai.text.data import LMDataLoader
from fastai.text.learner import language_model_learner
from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_lm_config
from fastai.torch_core import set_seed


class Judged(Callback):
    """Loss and accuracy over the validation's tokens, and the clocks of training."""

    order = 1000

    def before_fit(self) -> None:
        self.losses: list[float] = []
        self.accuracies: list[float] = []
        self.seconds = [0.0, 0.0]
        self.n_steps = self.n_valid = 0

    def before_train(self) -> None:
        self.begun = time.perf_counter(), time.process_time()

    def after_train(self) -> None:
        self.seconds[0] += time.perf_counter() - self.begun[0]
        self.seconds[1] += time.process_time() - self.begun[1]

    def before_validate(self) -> None:
        self.loss_sum, self.n_right, self.n_valid = 0.0, 0, 0

    def after_batch(self) -> None:
        if self.training:
            self.n_steps += 1
            return
        targets = self.learn.yb[0]
        self.loss_sum += float(self.learn.loss.double()) * targets.numel()
        self.n_right += int((self.learn.pred.argmax(dim=-1) == targets).sum())
        self.n_valid += targets.numel()

    def after_validate(self) -> None:
        self.losses.append(self.loss_sum / self.n_valid)
        self.accuracies.append(self.n_right / self.n_valid)


def trained(work: dict[str, Any], settings: str) -> dict[str, Any]:
    """Return the figures of one training from scratch."""
    set_seed(work["seed"], reproducible=False)
    device = torch.device("cuda" if work["accelerator"] == "gpu" else "cpu")
    shape = {"bs": work["streams"], "seq_len": work["sequence_length"], "device": device}
    texts = {split: [torch.tensor(ids) for ids in work[split]] for split in ("train", "valid")}
    loaders = DataLoaders(
        *(LMDataLoader(texts[split], shuffle=split == "train", **shape) for split in texts), device=device
    )
    loaders.vocab = [f"word {number}" for number in range(work["n_words"])]
    sizes = {"emb_sz": work["embedding"], "n_hid": work["hidden"], "n_layers": work["layers"]}
    options: dict[str, Any] = {}
    judged = Judged()
    callbacks: list[Any] = [judged]
    if settings == "same":
        adam = partial(Adam, sqr_mom=0.999, eps=1e-8, wd=work["weight_decay"])
        options = {"opt_func": adam, "moms": (0.95, 0.85, 0.95)}
        callbacks.append(GradientClip(work["clip"]))
    learner = language_model_learner(
        loaders,
        AWD_LSTM,
        config={**awd_lstm_lm_config, **sizes},
        drop_mult=work["drop_mult"],
        pretrained=False,
        cbs=callbacks,
        **options,
    )
    begun = time.perf_counter(), time.process_time()
    with learner.no_bar():
        learner.fit_one_cycle(work["epochs"], lr_max=work["rate"], pct_start=work["warmup"])
    return {
        "perplexities": [round(math.exp(loss), 3) for loss in judged.losses],
        "accuracies": [round(accuracy, 5) for accuracy in judged.accuracies],
        "n_valid": judged.n_valid,
        "n_steps": judged.n_steps,
        "fit_s": round(judged.seconds[0], 2),
        "fit_cpu_s": round(judged.seconds[1], 2),
        "whole_s": round(time.perf_counter() - begun[0], 2),
        "whole_cpu_s": round(time.process_time() - begun[1], 2),
    }


def main() -> int:
    work = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(work["threads"])
    names = ("fastai", "torch")
    print(json.dumps({f"peer_{name}": importlib.metadata.version(name) for name in names}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(trained(work, json.loads(line)["settings"])), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    # what fastai prints must not stand among the answers
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdout = sys.stderr
    sys.exit(main())
