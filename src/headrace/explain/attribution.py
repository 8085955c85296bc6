"""Integrated gradients over the token embeddings: what each token added to a label's logit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headrace.classifier import BothWays, Classifier
from headrace.errors import DataError, MissingExtra, ModelError, RecipeError, suggestion
from headrace.explain.explanation import SMALLEST, TOLERANCE, Explanation
from headrace.explain.places import Placed, place
from headrace.text.batch import Batch, collate
from headrace.text.store import TokenStore
from headrace.text.subwords import Texts
from headrace.text.tokenizer import Tokenizer

Target = str | Sequence[str | None] | None
_Value = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Integration:
    """How exactly the integral along the path is computed.

    Attributes:
        tolerance: Largest error of the attributions' sum, as a share of the difference that it should give.
        first_steps: Gauss-Legendre points of the first attempt; each further one takes twice as many.
        max_steps: No attempt takes more; the error that it reached stands in the result.
        max_tokens: Tokens of one pass through the model; more points than fit are computed one batch after another.
    """

    tolerance: float = TOLERANCE
    first_steps: int = 16
    max_steps: int = 512
    max_tokens: int = 4096

    def __post_init__(self) -> None:
        if not 1 <= self.first_steps <= self.max_steps:
            raise RecipeError(
                f"{self.first_steps} first steps and at most {self.max_steps} do not go together",
                where="first_steps",
                next="use 1 <= first_steps <= max_steps",
            )


def explain(
    classifier: Classifier,
    subwords: Tokenizer,
    texts: Texts,
    *,
    max_length: int,
    truncate: str = "head",
    target: Target = None,
    integration: Integration | None = None,
) -> list[Explanation]:
    """Return for each text how much each piece of it moved the answer.

    The explained value is, for a single label, the label's logit less that of the strongest other label (for two labels
    the margin), in multi-label the label's logit. The baseline is the same text with each ordinary token's embedding
    replaced by that of the mask token (of padding where there is none); positions, segments and special tokens stay.
    The attributions of all tokens sum to the value of the text less that of the baseline (completeness). The number of
    steps is doubled until they do. Nothing random is drawn, and no gradient is left behind.

    Args:
        classifier: Put into evaluation mode for the pass, and back afterwards; where its weights are, it is computed.
        subwords: Its tokenizer.
        texts: Texts, or pairs of texts. An empty list gives an empty one; a text without any word has no pieces.
        max_length: Tokens read of each, special ones included.
        truncate: `head`, `tail` or `head_tail`.
        target: The label to explain, or one a text; None for the label with the highest logit.
        integration: See `Integration`.

    Raises:
        MissingExtra: captum is not installed.
        RecipeError: There is no such label, or the cut is not possible.
        DataError: A text is not a string, or there are not as many targets as texts.
        ModelError: The backbone has no table of token embeddings.

    Source:
        Sundararajan, Taly, Yan 2017, arXiv 1703.01365: section 3 (the integral), proposition 1 (completeness),
        section 5 (steps until the sum is near). They use a zero embedding as the baseline of text; the mask token is
        what a masked language model has been taught to read as "some word".
    """
    _captum()  # what is missing is said before anything is computed
    targets = _targets(target, len(texts), classifier)
    layer = _embedding_layer(classifier)
    placed = place(subwords, texts, max_length=max_length, truncate=truncate)
    found = []
    # A caller may be scoring: gradients are needed here all the same.
    with _still(classifier), torch.inference_mode(False), torch.enable_grad():
        for one, label in zip(placed, targets, strict=True):
            batch = _batch(one, subwords).to(layer.weight.device)
            ends = _ends(layer, batch, one.is_ordinary, subwords)
            logits = partial(_logits, classifier, layer, batch)
            how = integration or Integration()
            found.append(_explained(one, logits, ends, label, classifier=classifier, integration=how))
    return found


def _explained(
    placed: Placed,
    logits: _Value,
    ends: tuple[Tensor, Tensor],
    label: int | None,
    *,
    classifier: Classifier,
    integration: Integration,
) -> Explanation:
    """Return the explanation of one text; `ends` are the embeddings at the path's start and end, [1, tokens, width]."""
    with torch.no_grad():
        at_start, at_end = (logits(embeddings).double() for embeddings in ends)
    chosen, other = _compared(at_end[0], label, multi_label=classifier.multi_label)
    value_at_end = float(_margin(at_end, chosen, other))
    difference = value_at_end - float(_margin(at_start, chosen, other))
    attributions, n_steps, error = np.zeros(len(placed.order)), 0, 0.0
    if placed.is_ordinary.any():

        def value(embeddings: Tensor) -> Tensor:
            return _margin(logits(embeddings), chosen, other)

        attributions, n_steps, error = _integrated(value, ends, difference, integration)
    names = classifier.labels.names
    return Explanation(
        label=names[chosen],
        against=None if other is None else names[other],
        texts=placed.texts,
        pieces=placed.pieces(attributions),
        value=value_at_end,
        total=float(attributions.sum()),
        difference=difference,
        error_share=error,
        n_steps=n_steps,
    )


def _integrated(
    value: _Value, ends: tuple[Tensor, Tensor], difference: float, integration: Integration
) -> tuple[np.ndarray, int, float]:
    """Return the attribution of each token, [tokens] float64, the steps that it took, and the error of their sum."""
    method = _captum()(value)
    start, end = ends
    n_rows = max(1, integration.max_tokens // end.shape[1])
    n_steps = integration.first_steps
    while True:
        of_values = method.attribute(
            end, baselines=start, n_steps=n_steps, method="gausslegendre", internal_batch_size=n_rows
        )
        attributions = of_values.detach().double().sum(dim=-1)[0].cpu().numpy()
        error = abs(float(attributions.sum()) - difference) / max(abs(difference), SMALLEST)
        if error <= integration.tolerance or 2 * n_steps > integration.max_steps:
            return attributions, n_steps, error
        n_steps *= 2


def _compared(logits: Tensor, label: int | None, *, multi_label: bool) -> tuple[int, int | None]:
    """Return the label to explain, by default the strongest, and the strongest other one (None in multi-label)."""
    order = torch.argsort(logits, descending=True, stable=True).tolist()
    chosen = order[0] if label is None else label
    others = [index for index in order if index != chosen]
    return chosen, None if multi_label or not others else others[0]


def _margin(logits: Tensor, chosen: int, other: int | None) -> Tensor:
    return logits[:, chosen] if other is None else logits[:, chosen] - logits[:, other]


def _logits(classifier: Classifier, layer: Any, batch: Batch, embeddings: Tensor) -> Tensor:
    """Return the logits of one text with these token embeddings, [rows, labels], for [rows, tokens, width].

    The text's own ids stay in the batch, so that families which read positions or the mask off them are not misled.
    """
    n_rows = len(embeddings)
    was_asked = False

    def exchange(_module: nn.Module, _arguments: Any, output: Tensor) -> Tensor:
        nonlocal was_asked
        was_asked = True
        return embeddings.reshape(output.shape).to(output.dtype)

    segments = batch.token_type_ids
    repeated = Batch(
        input_ids=batch.input_ids.expand(n_rows, -1),
        attention_mask=batch.attention_mask.expand(n_rows, -1),
        token_type_ids=None if segments is None else segments.expand(n_rows, -1),
        rows=batch.rows.expand(n_rows),
    )
    handle = layer.register_forward_hook(exchange)
    try:
        logits: Tensor = classifier(repeated)
    finally:
        handle.remove()
    if not was_asked:
        raise _no_embeddings(classifier)
    return logits


def _batch(placed: Placed, subwords: Tokenizer) -> Batch:
    store = TokenStore.of([placed.encoded])
    return collate(store, np.zeros(1), None, pad_id=subwords.pad_id, uses_token_types=subwords.uses_token_types)


def _ends(layer: Any, batch: Batch, is_ordinary: np.ndarray, subwords: Tokenizer) -> tuple[Tensor, Tensor]:
    """Return the embeddings of the baseline and of the text, [1, tokens, width] each."""
    n_known = int(layer.weight.shape[0])
    blank = next((id for id in (subwords.mask_id, subwords.pad_id) if id is not None and id < n_known), 0)
    ordinary = torch.from_numpy(is_ordinary).to(batch.input_ids.device)
    with torch.no_grad():
        return layer(torch.where(ordinary, blank, batch.input_ids)), layer(batch.input_ids)


def _embedding_layer(classifier: Classifier) -> Any:
    if isinstance(classifier, BothWays):
        raise ModelError(
            "an answer of two readers, forward and backward, cannot be explained by one table of embeddings",
            where="backbone: direction",
            next="explain a classifier that reads in one direction",
        )
    for owner in (classifier.backbone, getattr(classifier.backbone, "encoder", None)):
        find = getattr(owner, "get_input_embeddings", None)
        layer = find() if find is not None else None
        if isinstance(layer, nn.Module) and isinstance(getattr(layer, "weight", None), Tensor):
            return layer
    raise _no_embeddings(classifier)


def _no_embeddings(classifier: Classifier) -> ModelError:
    return ModelError(
        f"the backbone {classifier.backbone.family!r} has no table of token embeddings to explain an answer by",
        where="backbone",
        next="explain a classifier over a transformers encoder",
    )


def _targets(target: Target, n_texts: int, classifier: Classifier) -> list[int | None]:
    wanted = [target] * n_texts if target is None or isinstance(target, str) else list(target)
    if len(wanted) != n_texts:
        raise DataError(f"there are {len(wanted)} targets for {n_texts} texts", where="target", next="give one a text")
    names = classifier.labels.names
    unknown = next((name for name in wanted if name is not None and name not in names), None)
    if unknown is not None:
        raise RecipeError(f"there is no label {unknown!r}", where="label", next=suggestion(str(unknown), names))
    return [None if name is None else names.index(name) for name in wanted]


def _captum() -> Any:
    try:
        return import_module("captum.attr").IntegratedGradients
    except ImportError as error:
        raise MissingExtra(
            "captum is not installed; explanations need it", where="explain", next="pip install 'headrace[explain]'"
        ) from error


@contextmanager
def _still(classifier: Classifier) -> Iterator[None]:
    """Switch dropout and the parameters' gradients off; afterwards each module and parameter is as it was."""
    modes = [(module, module.training) for module in classifier.modules()]
    wants = [(parameter, parameter.requires_grad) for parameter in classifier.parameters()]
    classifier.eval()
    classifier.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in wants:
            parameter.requires_grad = flag
