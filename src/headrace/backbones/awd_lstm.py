"""ULMFiT's AWD-LSTM: reads a text word by word, in chunks, and returns a state for each word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

from headrace.backbones import _awd_weights
from headrace.backbones._awd_layers import (
    CLASSIFIER,
    Dropouts,
    DroppedLstm,
    Sizes,
    State,
    VariationalDropout,
    WordDropout,
)
from headrace.backbones._base import Backbone, ParameterGroups
from headrace.errors import ModelError, suggestion
from headrace.text.batch import Batch

__all__ = ["AwdLstm", "Settings", "build", "load", "load_parts", "resolve"]

#: Tokens of a chunk: the state goes on to the next one, gradients and dropout masks do not.
CHUNK_TOKENS = 72
#: What a text is judged by: its last tokens, whole chunks from its start. Gradients reach no further back.
KEPT_TOKENS = 20 * CHUNK_TOKENS
DIRECTIONS = ("forward", "backward")
_EMBEDDING_BOUND = 0.1
_LIMITS = {"n_words": 10_000_000, "embedding_size": 65_536, "hidden_size": 65_536, "n_layers": 64}
_CONFIG_KEYS = {"backbone", *_LIMITS, "dropouts", "direction", "source"}


class AwdLstm(Backbone):
    """An AWD-LSTM over words.

    A text is read in chunks of 72 tokens from its own start, so what stands beside it in the batch moves nothing. fastai
    pads in front, in whole chunks, which gives a text alone the same answer; but in a mixed batch it may lose the last
    chunk of a text (lengths 200, 140 and 100: the third) or its last state, and how many chunks it keeps of more than
    1,440 tokens depends on the longest text. Here each text is read as it is alone.

    In training the gradient goes back through one chunk at a time and reaches the chunks within the last 1,440 tokens;
    each chunk has dropout masks of its own. In evaluation nothing is cut: an explanation sees the whole gradient.

    Args:
        n_words: Size of the vocabulary.
        sizes: Of the embeddings, of the layers, and how many layers.
        dropouts: The rates.
        direction: `forward`, or `backward`: the real tokens of each text are read from the last to the first, the
            special ones too. The hidden states are at the places of their tokens all the same.
        source: Where the weights come from, for the record.

    Raises:
        ModelError: There is no such direction.

    Source: Howard & Ruder 2018 (arXiv 1801.06146), section 3.3 (BPT3C); Merity et al. 2018 (arXiv 1708.02182).
    """

    family = "awd_lstm"
    frozen_in_eval = False

    def __init__(
        self,
        n_words: int,
        *,
        sizes: Sizes,
        dropouts: Dropouts = CLASSIFIER,
        direction: str = "forward",
        source: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if direction not in DIRECTIONS:
            raise ModelError(
                f"one model does not read in the direction {direction!r}",
                where="backbone: direction",
                next=suggestion(direction, DIRECTIONS),
            )
        self.n_words = n_words
        self.sizes = sizes
        self.width = sizes.embedding_size
        self.dropouts = dropouts
        self.direction = direction
        self.source = dict(source or {})
        self.embedding = nn.Embedding(n_words, sizes.embedding_size, _weight=torch.empty(n_words, sizes.embedding_size))
        nn.init.uniform_(self.embedding.weight, -_EMBEDDING_BOUND, _EMBEDDING_BOUND)
        widths = sizes.layer_widths
        self.layers = nn.ModuleList(
            DroppedLstm(below, above, weight_dropout=dropouts.weight) for below, above in pairwise(widths)
        )
        self.word_dropout = WordDropout(n_words, dropouts.embedding)
        self.input_dropout = VariationalDropout(dropouts.input)
        self.hidden_dropout = VariationalDropout(dropouts.hidden)

    def forward(self, batch: Batch) -> Tensor:
        """Return the states of the last layer, [texts, tokens, width]; those of padding have no meaning."""
        lengths = batch.attention_mask.sum(dim=1)
        # all embeddings at once: one gradient of the table a batch, not one a chunk
        embedded, ids = self.embedding(batch.input_ids), batch.input_ids
        order = torch.argsort(lengths, descending=True, stable=True)
        embedded, ids = embedded.index_select(0, order), ids.index_select(0, order)
        places = self._reading_order(lengths[order], ids.shape[1])
        if places is not None:
            embedded, ids = _taken(embedded, places), ids.gather(1, places)
        hidden = self._read_chunks(embedded, ids, sorted(lengths.tolist(), reverse=True))
        if places is not None:
            hidden = _taken(hidden, places)  # reversing twice is the identity
        return hidden.index_select(0, torch.argsort(order))

    def read(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one chunk of each text and return the states of the last layer, before any output dropout.

        Args:
            ids: [texts, tokens] int64, in the order in which they are read.
            state: What `initial_state` or the chunk before gave.

        Returns:
            [texts, tokens, width], and the state after the last token, cut off from the gradient.
        """
        return self._read(self.word_dropout(self.embedding(ids), ids), state)

    def initial_state(self, n_texts: int) -> State:
        """Return the state before the first token, all zeros: for each layer two of [texts, its size] float32."""
        weight = self.embedding.weight
        return [
            (weight.new_zeros(n_texts, size), weight.new_zeros(n_texts, size)) for size in self.sizes.layer_widths[1:]
        ]

    def pool_mask(self, batch: Batch) -> Tensor:
        """Return which tokens a text is pooled over, [texts, tokens] int64: its last 1,440 or, in whole chunks, fewer.

        The chunks begin at the text's start, so 1,500 tokens keep 1,428: all but the first of 72.
        """
        lengths = batch.attention_mask.sum(dim=1, keepdim=True)
        n_cut = (lengths - KEPT_TOKENS).clamp(min=0)
        first = -(-n_cut // CHUNK_TOKENS) * CHUNK_TOKENS
        columns = torch.arange(batch.attention_mask.shape[1], device=lengths.device)
        is_kept = columns < lengths - first if self.direction == "backward" else columns >= first
        return batch.attention_mask * is_kept

    def last_places(self, batch: Batch) -> Tensor:
        """Return where the token stands that is read last, [texts] int64."""
        lengths = batch.attention_mask.sum(dim=1)
        return torch.zeros_like(lengths) if self.direction == "backward" else (lengths - 1).clamp(min=0)

    def groups(self) -> ParameterGroups:
        """Return ("embeddings", …), ("layer 0", …) …: from bottom to top, each parameter in exactly one group."""
        layers = [(f"layer {number}", list(layer.parameters())) for number, layer in enumerate(self.layers)]
        return [("embeddings", list(self.embedding.parameters())), *layers]

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the table of embeddings; `forward` asks it once, with the batch's own ids."""
        return self.embedding

    def config(self) -> dict[str, Any]:
        """Return what `build` needs, as JSON."""
        return {
            "backbone": "awd_lstm",
            "n_words": self.n_words,
            **asdict(self.sizes),
            "dropouts": asdict(self.dropouts),
            "direction": self.direction,
            "source": self.source,
        }

    def for_classifier(self, *, drop_mult: float = 1.0) -> AwdLstm:
        """Return a copy with the same weights and a classifier's dropouts: what a language model hands on.

        Args:
            drop_mult: Factor of all rates, from 0.

        Raises:
            ModelError: The factor is not possible.
        """
        copy = AwdLstm(
            self.n_words,
            sizes=self.sizes,
            dropouts=CLASSIFIER.times(drop_mult),
            direction=self.direction,
            source=self.source,
        ).to(self.embedding.weight.device)
        copy.load_state_dict(self.state_dict(), strict=True)
        return copy

    def _read_chunks(self, embedded: Tensor, ids: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return the states of texts that are in order of length, the longest first, and read from left to right."""
        n_texts, n_tokens = ids.shape
        state = self.initial_state(n_texts)
        chunks: list[Tensor] = []
        for start in range(0, max(lengths, default=0), CHUNK_TOKENS):
            n_reading = sum(length > start for length in lengths)
            n_too_long = sum(length > start + KEPT_TOKENS for length in lengths) if self.training else 0
            part = slice(start, min(start + CHUNK_TOKENS, lengths[0]))
            state = [(output[:n_reading], cell[:n_reading]) for output, cell in state]
            with torch.set_grad_enabled(torch.is_grad_enabled() and n_too_long < n_reading):
                dropped = self.word_dropout(embedded[:n_reading, part], ids[:n_reading, part])
                hidden, state = self._read(dropped, state, cuts=self.training)
            if n_too_long and hidden.requires_grad:
                hidden = torch.cat([hidden[:n_too_long].detach(), hidden[n_too_long:]])
            chunks.append(functional.pad(hidden, (0, 0, 0, 0, 0, n_texts - n_reading)))
        if not chunks:
            return embedded.new_zeros(n_texts, n_tokens, self.width)
        read = torch.cat(chunks, dim=1)
        return functional.pad(read, (0, 0, 0, n_tokens - read.shape[1]))

    def _read(self, embedded: Tensor, state: State, *, cuts: bool = True) -> tuple[Tensor, State]:
        hidden = self.input_dropout(embedded)
        after: State = []
        for number, layer in enumerate(self.layers):
            if number:
                hidden = self.hidden_dropout(hidden)
            hidden, (output, cell) = layer(hidden, state[number])
            after.append((output.detach(), cell.detach()) if cuts else (output, cell))
        return hidden, after

    def _reading_order(self, lengths: Tensor, n_tokens: int) -> Tensor | None:
        """Return the place of the token that is read at each step, [texts, tokens]; None for left to right."""
        if self.direction == "forward":
            return None
        columns = torch.arange(n_tokens, device=lengths.device).expand(len(lengths), -1)
        return torch.where(columns < lengths[:, None], lengths[:, None] - 1 - columns, columns)


class Settings(TypedDict, total=False):
    """What a recipe may say of an AWD-LSTM.

    Attributes:
        weights: `none`, or the path of a .pth file that fastai published or saved, or of its folder.
        vocabulary: Path of the weights' own vocabulary (.json, .txt or .pkl); by default the one beside the weights.
        embedding_size, hidden_size, n_layers: 400, 1,152 and 3 by default, as the published weights have them.
        drop_mult: Factor of all dropouts, from 0; 1 by default.
        direction: `forward` (default) or `backward`.
    """

    weights: str
    vocabulary: str | None
    embedding_size: int
    hidden_size: int
    n_layers: int
    drop_mult: float
    direction: str


def load(
    name: str = "awd_lstm", *, words: Sequence[str] | None = None, pooler: bool = False, **settings: Unpack[Settings]
) -> AwdLstm:
    """Return an AWD-LSTM with a classifier's dropouts.

    Args:
        name: `awd_lstm`, for messages.
        words: The vocabulary of the texts, in the order of the ids: the words of the weights are matched to it, and a
            word that they do not know gets the mean of all. None takes the weights' own vocabulary.
        pooler: Must be false: there is none.
        **settings: See `Settings`.

    Raises:
        ModelError: The weights cannot be found or read, are of other sizes, or have another vocabulary; there are
            neither words nor weights; a size, rate or direction is not possible.
    """
    if pooler:
        raise ModelError(f"{name} has no pooler", where="head: pool", next="use pool: concat")
    return load_parts(words, CLASSIFIER, settings)[0]


def load_parts(words: Sequence[str] | None, dropouts: Dropouts, settings: Settings) -> tuple[AwdLstm, Tensor | None]:
    """Return an AWD-LSTM, and the bias of its decoder, [words] float32, where there are weights that have one.

    Args:
        words: As in `load`.
        dropouts: The rates before `drop_mult`.
        settings: See `Settings`.

    Raises:
        ModelError: As in `load`.
    """
    usual = Sizes()
    sizes = Sizes(
        settings.get("embedding_size", usual.embedding_size),
        settings.get("hidden_size", usual.hidden_size),
        settings.get("n_layers", usual.n_layers),
    )
    _check_sizes(asdict(sizes), where="backbone")
    weights = settings.get("weights", "none")
    rates = dropouts.times(settings.get("drop_mult", 1.0))
    direction = settings.get("direction", "forward")
    found = None
    if weights == "none" and settings.get("vocabulary") is not None:
        raise ModelError(
            f"vocabulary is {settings['vocabulary']!r}, the words of weights, and weights is none",
            where="backbone: vocabulary",
            next="name the weights, or remove vocabulary: the words then come from the texts",
        )
    if weights != "none":
        found = _awd_weights.read(weights, settings.get("vocabulary"), sizes=sizes, words=words)
    if found is not None:
        n_words = len(found.tensors["embedding.weight"])
    elif words is not None:
        n_words = len(words)
    else:
        raise ModelError(
            "an AWD-LSTM without weights needs the words of its texts", where="backbone", next="give words"
        )
    _check_sizes({**asdict(sizes), "n_words": n_words}, where="backbone")
    source = {"weights": "none"} if found is None else found.source
    model = AwdLstm(n_words, sizes=sizes, dropouts=rates, direction=direction, source=source)
    if found is None:
        return model, None
    model.load_state_dict(found.tensors, strict=True)
    return model, found.bias


def build(config: Mapping[str, Any], *, pooler: bool = False) -> AwdLstm:
    """Return an AWD-LSTM with random weights from what `AwdLstm.config` gave.

    Raises:
        ModelError: The config was changed: keys are missing or unknown, or sizes or rates absurd.
    """
    wrong = sorted(set(config) ^ _CONFIG_KEYS)
    if wrong or pooler:
        raise ModelError(
            f"the config of an AWD-LSTM lacks or does not know: {', '.join(wrong) or 'pooler'}",
            where="config.json",
            next="take the original",
        )
    _check_sizes(config, where="config.json")
    try:
        rates = Dropouts(**{str(name): float(rate) for name, rate in config["dropouts"].items()}).times(1.0)
        source = dict(config["source"])
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"the config of an AWD-LSTM is damaged: {error}", where="config.json", next="take the original"
        ) from error
    sizes = Sizes(config["embedding_size"], config["hidden_size"], config["n_layers"])
    return AwdLstm(config["n_words"], sizes=sizes, dropouts=rates, direction=str(config["direction"]), source=source)


def resolve(name: str) -> str:
    """Refuse: an AWD-LSTM brings no tokenizer, its words come from the texts or from its weights' vocabulary.

    Raises:
        ModelError: Always.
    """
    raise ModelError(
        f"{name} has no tokenizer of its own",
        where="backbone",
        next="build its words from the texts, or read those of its weights (headrace.text.vocabulary)",
    )


def _check_sizes(sizes: Mapping[str, Any], *, where: str) -> None:
    for name, size in sizes.items():
        most = _LIMITS.get(name)
        if most is None:
            continue
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= most:
            raise ModelError(
                f"{name} is {size!r}, not a whole number from 1 to {most:,}", where=f"{where}: {name}", next="change it"
            )


def _taken(hidden: Tensor, places: Tensor) -> Tensor:
    """Return [texts, tokens, width] with the tokens at these places, [texts, tokens]."""
    return hidden.gather(1, places.unsqueeze(-1).expand(-1, -1, hidden.shape[2]))
