"""Scores and vectors of texts, in input order, many texts at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from headrace import compiled
from headrace.errors import RecipeError, suggestion
from headrace.matmul import fastest_route, routed
from headrace.model import Classifier
from headrace.predict.narrow import ONE_AT_A_TIME, each_module
from headrace.text.batch import Batch, Tokens, batches_by_length, collate
from headrace.text.store import TokenStore
from headrace.text.subwords import Encoded

PRECISIONS = ("fp32", "bf16")
# On a CPU the intermediate values of larger batches leave the cache; a GPU is idle with smaller ones.
MAX_TOKENS_CPU = 4096
MAX_TOKENS = 16_384
MAX_TEXTS = 256
# A single text's tokens on a CPU are filled up to a multiple of so many: oneDNN compiles its kernels for each number of
# tokens that it meets, which takes as long as a short text does.
EVEN_TOKENS = 8
#: What `embed` can make of the token vectors; `pooler` only where the backbone was built with it.
POOLS = ("mean", "cls", "max", "concat", "pooler")


class Compute(TypedDict, total=False):
    """How a pass over texts is computed.

    Attributes:
        device: Where; the classifier is moved there and stays. By default where its weights are.
        precision: `fp32`, or `bf16` (autocast; scores move by about 1e-2).
        max_tokens: Tokens of a batch, padding included; by default 4,096 on a CPU, else 16,384. A longer text goes alone.
        route: Which library multiplies float32 matrices on a CPU, see `headrace.matmul`; by default the faster one. Scores
            that are to be equal to the bit in two processes need the same; otherwise they may differ by about 1e-7.
        progress: Called with the texts that are done and all texts, after each batch.
    """

    device: str | torch.device
    precision: str
    max_tokens: int
    route: str
    progress: Callable[[int, int], None] | None


def known_precision(name: str) -> str:
    """Return the precision of that name.

    Raises:
        RecipeError: There is no such precision.
    """
    if name not in PRECISIONS:
        raise RecipeError(f"there is no precision {name!r}", where="precision", next=suggestion(str(name), PRECISIONS))
    return name


def device_of(name: str) -> torch.device:
    """Return the device of a name: `auto` is the accelerator where there is one, else the CPU.

    Raises:
        RecipeError: There is no such device, or it cannot be used here.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # `meta` is a device, but has no numbers
    except (RuntimeError, AssertionError, NotImplementedError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise RecipeError(
            f"the device {name!r} cannot be used: {reason}", where="device", next="auto, cpu, or such as cuda:0"
        ) from error
    return device


def score(
    classifier: Classifier,
    texts: Tokens | Sequence[Encoded],
    *,
    pad_id: int,
    uses_token_types: bool,
    **compute: Unpack[Compute],
) -> np.ndarray:
    """Return the logits of all texts, [texts, labels] float32, in input order.

    Texts of like length share a batch. What else is in the batch moves a logit by at most about 1e-6.

    Args:
        classifier: Put into evaluation mode for the pass, and back afterwards.
        texts: A token store, or encoded texts; none give an array of no rows.
        pad_id: The tokenizer's padding id.
        uses_token_types: Whether the family wants segments.
        **compute: See `Compute`.

    Raises:
        RecipeError: There is no such precision.
    """
    tokens = {"pad_id": pad_id, "uses_token_types": uses_token_types}
    found = np.empty((_count(texts), len(classifier.labels)), dtype=np.float32)
    first_alone = classifier.backbone.first_alone
    passes = _passes(classifier, _as_tokens(texts), tokens, classifier.forward, compute, first_alone=first_alone)
    for batch, logits in passes:
        found[batch.rows.cpu().numpy()] = logits.float().cpu().numpy()
    return found


def embed(
    classifier: Classifier,
    texts: Tokens | Sequence[Encoded],
    *,
    pad_id: int,
    uses_token_types: bool,
    pool: str = "mean",
    **compute: Unpack[Compute],
) -> np.ndarray:
    """Return one vector of the last hidden layer a text, [texts, width] float32, in input order.

    With `concat` a vector is three times as wide.

    Args:
        classifier: Its head takes no part.
        texts: A token store, or encoded texts.
        pad_id: The tokenizer's padding id.
        uses_token_types: Whether the family wants segments.
        pool: `mean`, `cls`, `max`, `concat` (last, max and mean), or `pooler` where the backbone has one.
        **compute: See `Compute`.

    Raises:
        RecipeError: There is no such pooling or precision.
        ModelError: `pooler` is asked for and the backbone was built without it.
    """
    if pool not in POOLS:
        raise RecipeError(f"there is no pooling {pool!r}", where="pool", next=suggestion(pool, POOLS))
    tokens = {"pad_id": pad_id, "uses_token_types": uses_token_types}
    found = np.empty((_count(texts), classifier.embedding_width(pool)), dtype=np.float32)
    for batch, vectors in _passes(
        classifier, _as_tokens(texts), tokens, lambda batch: classifier.embed(batch, pool), compute
    ):
        found[batch.rows.cpu().numpy()] = vectors.float().cpu().numpy()
    return found


def token_vectors(
    classifier: Classifier,
    texts: Tokens | Sequence[Encoded],
    *,
    pad_id: int,
    uses_token_types: bool,
    **compute: Unpack[Compute],
) -> list[np.ndarray]:
    """Return the last hidden state of each token, for each text [its tokens, width] float32, in input order.

    The arguments and errors are those of `score`. Special tokens have their vectors too, padding has none.
    """
    tokens = {"pad_id": pad_id, "uses_token_types": uses_token_types}
    found: list[np.ndarray] = [np.empty((0, 0), dtype=np.float32)] * _count(texts)
    for batch, hidden in _passes(classifier, _as_tokens(texts), tokens, classifier.hidden, compute):
        lengths = batch.attention_mask.sum(dim=1).tolist()
        vectors = hidden.float().cpu().numpy()
        for row, length, of_text in zip(batch.rows.tolist(), lengths, vectors, strict=True):
            found[row] = of_text[:length].copy()
    return found


def _count(texts: Tokens | Sequence[Encoded]) -> int:
    return len(texts) if isinstance(texts, Sequence) else len(texts.lengths)


def _as_tokens(texts: Tokens | Sequence[Encoded]) -> Tokens:
    return TokenStore.of(texts) if isinstance(texts, Sequence) else texts


def _passes(
    classifier: Classifier,
    texts: Tokens,
    tokens: dict[str, Any],
    function: Callable[[Batch], Tensor],
    compute: Compute,
    *,
    first_alone: bool = False,
) -> Iterator[tuple[Batch, Tensor]]:
    """Yield each batch with what the function makes of it, longest texts first.

    Args:
        classifier: In evaluation mode for the pass.
        texts: Their tokens.
        tokens: How they become tensors.
        function: Of a batch.
        compute: See `Compute`.
        first_alone: Whether of the last hidden states the function asks only for each text's first one.
    """
    precision = known_precision(compute.get("precision", "fp32"))
    if "device" in compute:
        classifier.to(compute["device"])
    device = next(classifier.parameters()).device
    progress = compute.get("progress")
    n_texts, n_done = len(texts.lengths), 0
    max_tokens = compute.get("max_tokens", MAX_TOKENS_CPU if device.type == "cpu" else MAX_TOKENS)
    groups = batches_by_length(texts.lengths, max_tokens=max_tokens, max_texts=MAX_TEXTS)
    loops = device.type == "cpu" and precision == "bf16" and compiled.attends(torch.bfloat16, head_width=2)
    with ExitStack() as stack:
        stack.enter_context(ONE_AT_A_TIME)
        stack.enter_context(_evaluating(classifier))
        # where no loop computes a single text is answered at once; in float32 texts of one length have nothing to gain either
        gains = loops or any(len(rows) > 1 if precision == "bf16" else np.ptp(texts.lengths[rows]) for rows in groups)
        if device.type == "cpu" and gains:
            stack.enter_context(classifier.backbone.scoring_on_cpu(first_alone=first_alone))
        if device.type == "cpu" and precision == "fp32":
            stack.enter_context(routed(compute.get("route") or fastest_route()))
        for rows in groups:
            is_alone = device.type == "cpu" and len(rows) == 1
            multiple_of = _few_widths(int(texts.lengths[rows[0]]), classifier) if is_alone else 1
            batch = collate(texts, rows, None, **tokens, multiple_of=multiple_of).to(device)
            with torch.inference_mode(), _autocast(device, precision), compiled.answering() if loops else nullcontext():
                result = function(batch)
            yield batch, result
            n_done += len(rows)
            if progress is not None:
                progress(n_done, n_texts)


def _few_widths(length: int, classifier: Classifier) -> int:
    """Return of what a single text's tokens are filled up to a multiple: 1 where the model would not take so many."""
    most = classifier.backbone.max_tokens
    return EVEN_TOKENS if most is None or -(-length // EVEN_TOKENS) * EVEN_TOKENS <= most else 1


def _autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off; afterwards each module trains or not as before (a frozen part keeps its own flag)."""
    training = [module for module in each_module(model) if module.training]
    if training:  # switching takes as long as a tenth of a short text
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
