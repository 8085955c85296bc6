"""What fastai's AWD-LSTM answers on small random weights: the fixture that ours is compared with.

Run it in an environment with fastai 2.8 and without Headrace:

    python parity/awd_lstm.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastai
import numpy as np
import torch
from fastai.callback.rnn import RNNRegularizer
from fastai.text.data import pad_chunk
from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_clas_config, awd_lstm_lm_config
from fastai.text.models.core import get_language_model, get_text_classifier
from torch import Tensor, nn

FIXTURE = Path(__file__).parents[1] / "tests" / "fixtures" / "parity" / "awd_lstm.npz"
N_WORDS, N_LABELS = 40, 3
SIZES = {"emb_sz": 8, "n_hid": 12, "n_layers": 3}
STREAMS, TOKENS, CHUNKS = 3, 20, 3
# around the borders of a chunk (72) and of what is kept (1,440)
LENGTHS = (1, 10, 71, 72, 73, 150, 216, 1440, 1441, 1500, 1600)
# of these, and not of any lengths, fastai's batch gives what it gives for each text alone
BATCH = (216, 150, 72, 10)
WITH_HIDDEN = 150


def main(out: Path) -> None:
    """Write the fixture."""
    torch.manual_seed(4)
    torch.set_num_threads(1)
    found: dict[str, np.ndarray] = {"fastai": np.array(fastai.__version__), "torch": np.array(torch.__version__)}
    language_model(found)
    classifier(found)
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, **found)
    print(f"{out}: {len(found)} arrays, {out.stat().st_size:,} bytes, fastai {fastai.__version__}")  # noqa: T201


def language_model(found: dict[str, np.ndarray]) -> None:
    """Three chunks of three streams: logits, hidden state; then the gradients of a step without dropout."""
    model = get_language_model(AWD_LSTM, N_WORDS, {**awd_lstm_lm_config, **SIZES}, drop_mult=0.0)
    nn.init.normal_(model[1].decoder.bias)
    spread(model[0])
    keep(found, "lm.weights", model.state_dict())
    ids = torch.randint(2, N_WORDS, (STREAMS, TOKENS * CHUNKS + 1))
    found["lm.ids"] = ids.numpy()
    model.eval()
    model.reset()
    with torch.no_grad():
        for number in range(CHUNKS):
            part = slice(number * TOKENS, (number + 1) * TOKENS)
            logits, raw, _ = model(ids[:, part])
            found[f"lm.logits.{number}"], found[f"lm.raw.{number}"] = logits.numpy(), raw.numpy()
    keep_state(found, "lm.state", model[0].hidden)
    model.train()
    model.reset()
    with torch.no_grad():
        model(ids[:, :TOKENS])
    part = slice(TOKENS, 2 * TOKENS)
    logits, raw, dropped = model(ids[:, part])
    targets = ids[:, TOKENS + 1 : 2 * TOKENS + 1]
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    penalty = penalty_of(raw, dropped)
    (loss + penalty).backward()
    found["lm.loss"], found["lm.penalty"] = loss.detach().numpy(), penalty.detach().numpy()
    keep(found, "lm.gradients", {name: p.grad for name, p in model.named_parameters() if p.grad is not None})


def spread(encoder: AWD_LSTM) -> None:
    """Make the weights so large that the states differ from token to token, and any mistake shows."""
    with torch.no_grad():
        encoder.encoder.weight.mul_(10)
        for name, parameter in encoder.named_parameters():
            if "weight_hh" in name or "weight_ih" in name:
                parameter.mul_(2)


def penalty_of(raw: Tensor, dropped: Tensor) -> Tensor:
    """Return what fastai's callback adds to the loss, with the factors of its language-model learner."""

    class Learner:
        training, loss_grad = True, torch.zeros(())

    class Kept:
        out, raw_out = dropped, raw

    regularizer: Any = RNNRegularizer(alpha=2.0, beta=1.0)
    regularizer.learn, regularizer.rnn = Learner(), Kept()
    regularizer.learn.loss_grad = torch.zeros(())
    regularizer.after_loss()
    return regularizer.learn.loss_grad


def classifier(found: dict[str, np.ndarray]) -> None:
    """Texts of several lengths alone, some in a batch, backwards; then the gradients of a step without dropout."""
    config = {**awd_lstm_clas_config, **SIZES}
    # drop_mult spares the dropout before the last layer: `ps` is that one
    model = get_text_classifier(AWD_LSTM, N_WORDS, N_LABELS, config=config, drop_mult=0.0, ps=[0.0])
    spread(model[0].module)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor.add_(0.3 * torch.randn_like(tensor))
            module.running_var.uniform_(0.01, 0.2)
    keep(found, "classifier.weights", model.state_dict())
    texts = [torch.randint(2, N_WORDS, (length,)) for length in LENGTHS]
    found["classifier.ids"] = torch.cat(texts).numpy()
    found["classifier.lengths"] = np.array(LENGTHS)
    model.eval()
    with torch.no_grad():
        for direction in ("forward", "backward"):
            read = [text if direction == "forward" else text.flip(0) for text in texts]
            answers = [model(text[None]) for text in read]
            found[f"classifier.{direction}"] = torch.cat([answer[0] for answer in answers]).numpy()
            found[f"classifier.{direction}.hidden"] = answers[LENGTHS.index(WITH_HIDDEN)][1][0].numpy()
        batch = [texts[LENGTHS.index(length)] for length in BATCH]
        together = model(torch.stack([pad_chunk(text, pad_len=max(BATCH)) for text in batch]))[0]
        alone = torch.cat([model(text[None])[0] for text in batch])
        if (together - alone).abs().max() > 1e-6:
            raise SystemExit("fastai loses the end of a text in this batch: choose other lengths")
        found["classifier.batch"], found["classifier.batch.lengths"] = together.numpy(), np.array(BATCH)
    model.train()
    long = torch.randint(2, N_WORDS, (4, max(LENGTHS)))  # one text alone has no batch norm
    targets = torch.tensor([2, 0, 1, 2])
    loss = nn.functional.cross_entropy(model(long)[0], targets)
    loss.backward()
    found["classifier.long"], found["classifier.targets"] = long.numpy(), targets.numpy()
    found["classifier.loss"] = loss.detach().numpy()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    keep(found, "classifier.gradients", gradients)
    keep(found, "classifier.after", {name: b for name, b in model.named_buffers() if "running" in name})


def keep(found: dict[str, np.ndarray], name: str, tensors: dict[str, Tensor]) -> None:
    """Keep tensors under a name and their own."""
    found |= {f"{name}:{key}": tensor.detach().clone().numpy() for key, tensor in tensors.items()}


def keep_state(found: dict[str, np.ndarray], name: str, state: Any) -> None:
    """Keep output and cell of each layer, [streams, size]."""
    for number, (output, cell) in enumerate(state):
        found[f"{name}.{number}.output"], found[f"{name}.{number}.cell"] = output[0].numpy(), cell[0].numpy()


if __name__ == "__main__":
    main(FIXTURE)
