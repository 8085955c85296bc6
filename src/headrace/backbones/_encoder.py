"""An encoder as a backbone: padded or laid end to end, from the bottom or from its middle."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from logging import getLogger
from typing import Any

import torch
from torch import Tensor, nn

from headrace import compiled
from headrace.backbones import _laid_linear, _layers, _lower, _training
from headrace.backbones._attention import EVEN_ROW
from headrace.backbones._base import Backbone, NativeBackbone, ParameterGroups
from headrace.backbones._packed import Packed
from headrace.backbones._written import Written
from headrace.backbones._written_heads import WrittenNative
from headrace.errors import ModelError
from headrace.text.batch import Batch

logger = getLogger(__name__)

# Packed and padded hidden states (of size about 1) are apart by rounding: 1e-6 in float32.
_PACKED_TOLERANCE = 1e-4
# The layers above are the same code on the same states.
_SPLIT_TOLERANCE = 1e-5


class Transformer(Backbone):
    """An encoder of transformers, or one that is written out.

    Args:
        model: What `AutoModel` would give, or a `Written`.
        source: Where the weights come from, for the record: the name and the hub's commit.
    """

    def __init__(self, model: Any, *, source: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.model = model
        self.source = dict(source or {})
        config = model.config
        self.family = str(config.model_type)
        self.width = int(config.hidden_size)
        self.max_tokens = _max_tokens(self.encoder)
        accepted = inspect.signature(self.encoder.forward).parameters
        if "input_ids" not in accepted:
            raise ModelError(f"the family {self.family!r} does not read texts", next="name an encoder, e.g. minilm")
        # RoBERTa has one segment, DeBERTa-v3 none: the ids of a second would be out of range there
        n_segments = getattr(config, "type_vocab_size", None)
        self._takes_segments = "token_type_ids" in accepted and (n_segments is None or n_segments > 1)
        self._takes_positions = "position_ids" in accepted
        self._split: _lower.Layers | None = None
        self._known: dict[bool, tuple[bool, tuple[nn.Module, ...]]] = {}
        self._narrow: tuple[nn.Module, ...] = ()  # at most one; a module of its own it must not become

    @property
    def encoder(self) -> Any:
        """The encoder without a head."""
        return self.model

    def forward(self, batch: Batch) -> Tensor:
        """Return the last hidden states, [texts, tokens, width]; those of padding have no meaning."""
        return self._from_below(batch, None, 0)

    def _from_below(self, batch: Batch, states: Tensor | None, depth: int) -> Tensor:
        return (self._packed_forward if self._packs_now(batch) else self._padded_forward)(batch, states, depth)

    def _packs_now(self, batch: Batch) -> bool:
        """Tell whether this batch is laid end to end: in float32 evaluation not one without padding.

        It has nothing to gain there; in 16 bits the attention of `_attention` is faster than torch's own.
        """
        return self.packs and (self.training or self._has_halves() or not bool(batch.attention_mask.all()))

    def _has_halves(self) -> bool:
        return torch.is_autocast_enabled("cpu") or next(self.parameters()).dtype.itemsize == 2

    def _padded_forward(self, batch: Batch, states: Tensor | None = None, depth: int = 0) -> Tensor:
        with self._left_out(states, depth):
            hidden: Tensor = self.encoder(**self._arguments(batch))[0]
        return hidden

    def _left_out(self, states: Tensor | None, depth: int) -> AbstractContextManager[None]:
        if states is None:
            return nullcontext()
        return _lower.starting_at(self._layers, depth, states)

    def _packed_forward(self, batch: Batch, states: Tensor | None = None, depth: int = 0) -> Tensor:
        packed = self._laid(batch)
        if states is not None:
            states = packed.take_rows(states)
        with _training.without_masks(), self._left_out(states, depth), self._narrowing(packed):
            hidden: Tensor = self.encoder(**self._packed_arguments(batch, packed))[0]
        return self._put(packed, hidden, batch)

    def _laid(self, batch: Batch) -> Packed:
        """Return where the texts of a batch lie when they are laid end to end."""
        return Packed.of(batch.attention_mask, even=EVEN_ROW if self._has_halves() else 1)

    def _put(self, packed: Packed, hidden: Tensor, batch: Batch) -> Tensor:
        return (packed.put_first if self._narrow else packed.put)(hidden, batch.attention_mask)

    def _narrowing(self, packed: Packed) -> AbstractContextManager[None]:
        """Return a context in which each text's first token goes on alone behind the last attention."""
        return _lower.changing(self._narrow[0], packed.take_first) if self._narrow else nullcontext()

    def _packed_arguments(self, batch: Batch, packed: Packed) -> dict[str, Any]:
        found: dict[str, Any] = {"input_ids": packed.take(batch.input_ids), "packed": packed}
        found["position_ids"] = (packed.positions + _first_position(self.encoder)).unsqueeze(0)
        if self._takes_segments and batch.token_type_ids is not None:
            found["token_type_ids"] = packed.take(batch.token_type_ids)
        return found

    def pooled(self, batch: Batch, hidden: Tensor) -> Tensor | None:
        """Return the output of the family's own pooler, [texts, width], or None where it was not built."""
        pooler = getattr(self.encoder, "pooler", None)
        if pooler is None:
            return None
        if hasattr(self.encoder, "pooler_activation"):  # ALBERT keeps it beside a linear layer
            first: Tensor = self.encoder.pooler_activation(pooler(hidden[:, 0]))
            return first
        output: Tensor = pooler(hidden)
        return output

    def groups(self) -> ParameterGroups:
        """Return (name, parameters) from bottom to top; each parameter stands in exactly one group."""
        return _layers.group_parameters(self.encoder)

    def config(self) -> dict[str, Any]:
        """Return what `build` needs, as JSON."""
        return {
            "backbone": "transformer",
            "architecture": _architecture(self.model),
            "pooler": getattr(self.encoder, "pooler", None) is not None,
            "source": self.source,
        }

    def train_on_cpu(self) -> None:
        """Lay texts end to end where the family can, with dropouts that a CPU can afford: same rates, other masks."""
        _training.exchange(self.model)
        self._narrow = ()
        with compiled.answering():  # so that the trial computes as the training will
            self.packs = self._can_pack()
            if self.packs and self.first_alone:
                self._narrow = self._narrowest()
        if not self.packs:
            logger.info("%s: its texts are padded in training, in micro-batches of like length", self.family)

    def end_training(self) -> None:
        """Take back what `train_on_cpu` changed in the computation outside training."""
        self.packs, self._narrow = False, ()
        _training.restore(self.model)

    def weights_stand(self) -> AbstractContextManager[None]:
        """Inside the block each weight of a linear layer is laid out once, if `train_on_cpu` was called."""
        return _laid_linear.weights_stand()

    @contextmanager
    def scoring_on_cpu(self, *, first_alone: bool) -> Iterator[None]:
        """Lay texts end to end inside the block where the family can; see `Backbone`."""
        before = self.packs, self._narrow, self.first_alone
        was_exchanged = _training.is_exchanged(self.model)
        _training.exchange_attention(self.model)
        self._narrow, self.first_alone = (), first_alone
        try:
            if first_alone not in self._known:  # found by trying, once
                self.packs = self._can_pack()
                self._known[first_alone] = self.packs, self._narrowest() if self.packs and first_alone else ()
            self.packs, self._narrow = self._known[first_alone]
            yield
        finally:
            self.packs, self._narrow, self.first_alone = before
            if not was_exchanged:
                _training.restore_attention(self.model)

    def _can_pack(self) -> bool:
        """Return whether packed texts give the hidden states of padded ones, tried on a few tokens if need be."""
        if isinstance(self.encoder, Written):
            return True
        if not (self._takes_positions and _training.is_exchanged(self.model)):
            return False
        try:
            with self._on_trial() as batch:
                return self._apart_when_packed(batch) < _PACKED_TOLERANCE
        except TypeError as error:  # it does not hand unknown arguments on to its attention
            logger.debug("%s cannot be packed: %s", self.family, error)
            return False

    def _apart_when_packed(self, batch: Batch) -> float:
        apart = (self._packed_forward(batch) - self._padded_forward(batch)).abs()
        return float((apart[:, 0] if self._narrow else apart[batch.attention_mask.bool()]).max())

    def _narrowest(self) -> tuple[nn.Module, ...]:
        """Return the part of the last layer behind which each text's first token can go on alone, found by trying.

        It is the attention with its residual: what follows, two thirds of a layer, looks at one token at a time. A
        family whose layers are put together in another way has no such part.
        """
        if isinstance(self.encoder, Written):
            return (self.encoder.last_attention,)
        found = _layers.layer_list(self.encoder)
        for part in [] if found is None else found[1][-1].children():
            self._narrow = (part,)
            try:
                with self._on_trial() as batch:
                    if self._apart_when_packed(batch) < _PACKED_TOLERANCE:
                        return self._narrow
            except _lower.MISFITS as error:
                logger.debug("%s: not behind %s: %s", self.family, type(part).__name__, error)
        return ()

    @contextmanager
    def _on_trial(self) -> Iterator[Batch]:
        """Yield a few tokens; inside the block the model computes as in evaluation, without gradients."""
        flags = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            with torch.no_grad():
                device = next(self.parameters()).device
                yield _trial(self.encoder.get_input_embeddings().num_embeddings).to(device)
        finally:
            for module, flag in flags:
                module.training = flag

    def split_layers(self) -> int:
        """Return how many layers `upper` can leave out at most, tried on a few tokens; 0 where it cannot start midway."""
        narrow, self._narrow = self._narrow, ()
        try:
            with self._on_trial() as batch:
                self._split = _lower.Layers.of(self.encoder, lambda: self._padded_forward(batch))
                if self._split is None or not self._splits_well(batch, len(self._split.layers)):
                    self._split = None
        except _lower.MISFITS as error:  # a family whose layers are put together in another way
            logger.debug("the layers of %s cannot be told apart: %s", self.family, error)
            self._split = None
        finally:
            self._narrow = narrow
        return 0 if self._split is None else len(self._split.layers) - 1

    def _splits_well(self, batch: Batch, n_layers: int) -> bool:
        real = batch.attention_mask.bool()
        depths = sorted({1, n_layers // 2, n_layers - 1})
        kept, whole = self.lower_states(batch, depths)
        apart = 0.0
        for depth, states in kept.items():
            states = states * real.unsqueeze(-1)
            found = [self.upper(batch, states, depth)]
            if self.packs:
                found.append(self._packed_forward(batch, states, depth))
            apart = max(apart, *(float((hidden - whole)[real].abs().max()) for hidden in found))
        return apart < _SPLIT_TOLERANCE

    @property
    def _layers(self) -> _lower.Layers:
        if self._split is None:
            raise ModelError(f"{self.family!r} has no layers to start from", next="ask split_layers() first")
        return self._split

    def lower_states(self, batch: Batch, depths: Sequence[int]) -> tuple[dict[int, Tensor], Tensor]:
        """Return the hidden states below some layers, and the last ones; see `Backbone`."""
        with torch.no_grad():
            if not depths:
                return {}, self._padded_forward(batch)
            with _lower.catching(self._layers, depths) as states:
                hidden = self._padded_forward(batch)
        return states, hidden

    def upper(self, batch: Batch, states: Tensor, depth: int) -> Tensor:
        """Return the last hidden states, computed from those below layer `depth` upwards; see `Backbone`."""
        return self._from_below(batch, states, depth)

    def _arguments(self, batch: Batch) -> dict[str, Tensor]:
        arguments = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if self._takes_segments and batch.token_type_ids is not None:
            arguments["token_type_ids"] = batch.token_type_ids
        return arguments


class NativeTransformer(Transformer, NativeBackbone):
    """An encoder with its family's own classification head: what `AutoModelForSequenceClassification` would give.

    Args:
        model: The model with its head.
        label_names: The names of the outputs, in their order.
        source: Where the weights come from, for the record.
    """

    def __init__(self, model: Any, *, label_names: Sequence[str], source: Mapping[str, Any] | None = None) -> None:
        super().__init__(model, source=source)
        self.label_names = tuple(label_names)
        self._last: tuple[nn.Module, ...] = ()  # the last layer once it is found; as a tuple it is no module of its own

    @property
    def encoder(self) -> Any:
        """The encoder without its head."""
        return self.model.base_model

    def logits(self, batch: Batch) -> Tensor:
        """Return the logits of the family's own head, [texts, labels]."""
        return (self._packed_logits if self._packs_now(batch) else self._padded_logits)(batch)

    def _padded_logits(self, batch: Batch) -> Tensor:
        logits: Tensor = self.model(**self._arguments(batch)).logits
        return logits

    def _packed_logits(self, batch: Batch) -> Tensor:
        """Return the logits of texts that are laid end to end in the encoder and stand apart again for the head."""
        packed = self._laid(batch)
        if not self._last:  # to look for it takes a tenth of a short text
            found = _layers.layer_list(self.encoder)
            if found is None:
                raise TypeError("its layers cannot be found")
            self._last = (found[1][-1],)
        apart = _lower.changing(self._last[0], lambda hidden: self._put(packed, hidden, batch))
        with _training.without_masks(), self._narrowing(packed), apart:
            logits: Tensor = self.model(**self._packed_arguments(batch, packed)).logits
        return logits

    def _apart_when_packed(self, batch: Batch) -> float:
        try:
            logits = (self._packed_logits(batch) - self._padded_logits(batch)).abs()
        except _lower.MISFITS as error:  # a head that is put together in another way
            raise TypeError(f"its head cannot follow: {error}") from error
        return max(super()._apart_when_packed(batch), float(logits.max()))

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the family's own head."""
        below = {id(parameter) for parameter in self.encoder.parameters()}
        return [parameter for parameter in self.model.parameters() if id(parameter) not in below]

    def config(self) -> dict[str, Any]:
        """Return what `build_native` needs, as JSON."""
        return {**super().config(), "native": True}


def _architecture(model: Any) -> dict[str, Any]:
    """Return a model's config as JSON."""
    if isinstance(model, Written | WrittenNative):
        return dict(model.architecture)
    from headrace.backbones import _config  # it imports transformers, which this model has come from

    return _config.architecture(model.config)


def _max_tokens(encoder: Any) -> int | None:
    """Return how many tokens fit into the learned positions; None where positions are relative or rotary."""
    learned = _learned_positions(encoder)
    return None if learned is None else learned.num_embeddings - _first_position(encoder)


def _first_position(encoder: Any) -> int:
    """Return the position of a text's first token: RoBERTa counts from padding_idx + 1, the others from 0."""
    learned = _learned_positions(encoder)
    return 0 if learned is None or learned.padding_idx is None else learned.padding_idx + 1


def _learned_positions(encoder: Any) -> nn.Embedding | None:
    for name, module in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module
    return None


def _trial(n_tokens: int) -> Batch:
    """Return four short texts, two of them equally long, of tokens that are no special ones."""
    lengths = (9, 4, 7, 4)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.arange(mask.numel()).view(mask.shape) * 7919 % max(1, n_tokens - 10) + 10
    return Batch(ids.clamp(max=n_tokens - 1), mask, None, torch.arange(len(lengths)))
