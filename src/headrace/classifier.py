"""The Classifier: a backbone, a pooling and a head; and one that reads in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from headrace.backbones._base import Backbone, NativeBackbone, ParameterGroups
from headrace.data.examples import LabelSet
from headrace.errors import ModelError
from headrace.head import CLASSICAL, Head, HeadSettings, UlmfitHead, pool_hidden, pooled_width
from headrace.text.batch import Batch

__all__ = ["BothWays", "Classifier"]


class Classifier(nn.Module):
    """A backbone with a head.

    Args:
        backbone: Gives hidden states; a `NativeBackbone` brings its own head.
        settings: Pooling and head.
        labels: The names of the logits, in their order.
        multi_label: Whether a text may have none or several labels.
    """

    def __init__(self, backbone: Backbone, *, settings: HeadSettings, labels: LabelSet, multi_label: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.settings = settings
        self.labels = labels
        self.multi_label = multi_label
        self.head: Head | UlmfitHead | None = None
        backbone.first_alone = settings.name == "native" or settings.pool in ("cls", "pooler")
        width = pooled_width(backbone.width, settings.pool)
        if settings.name == "ulmfit":
            self.head = UlmfitHead(width, len(labels), hidden=settings.hidden, dropout=settings.dropout)
        elif settings.name != "native":
            # a classical head is fitted on features as they are: nothing may be dropped from them
            dropout = 0.0 if settings.name in CLASSICAL else settings.dropout
            self.head = Head(width, len(labels), hidden=settings.hidden, dropout=dropout)
        elif not isinstance(backbone, NativeBackbone):
            raise ModelError(
                f"the backbone {backbone.family!r} has no classification head of its own",
                where="head: native",
                next="use head: linear",
            )

    @property
    def needs_whole_step(self) -> bool:
        """Whether all texts of a step must go through together: a batch norm in the head sees the whole batch."""
        head = self.head
        return head is not None and any(isinstance(module, nn.BatchNorm1d) for module in head.modules())

    def forward(self, batch: Batch) -> Tensor:
        """Return logits, [texts, labels] float32, of a `Batch`; what it holds computed is not computed again."""
        if self.head is None:
            return self._native().logits(batch).float()
        features = self._pool(batch, self.settings.pool) if batch.features is None else batch.features
        logits: Tensor = self.head(features)
        return logits.float()

    @property
    def features_width(self) -> int:
        """Size of the vector that the head gets of each text."""
        return pooled_width(self.backbone.width, self.settings.pool)

    def features(self, batch: Batch, hidden: Tensor) -> Tensor:
        """Return what the head gets, [texts, width], of the last hidden states, [texts, tokens, width]."""
        return self._pooled(batch, hidden, self.settings.pool)

    def each_logits(self, batch: Batch) -> list[Tensor]:
        """Return the logits that a loss is taken of, each [texts, labels] float32: here those of `forward`."""
        logits: Tensor = self(batch)
        return [logits]

    def clipped_together(self) -> list[list[nn.Parameter]]:
        """Return the parameters in parts that learn apart from each other: here one."""
        return [list(self.parameters())]

    def joined(self, each: Sequence[Tensor]) -> Tensor:
        """Return the logits that `forward` makes of those of `each_logits`."""
        return each[0]

    def embedding_width(self, pool: str) -> int:
        """Return the size of a vector of `embed`."""
        return pooled_width(self.backbone.width, pool)

    def hidden(self, batch: Batch) -> Tensor:
        """Return the last hidden states, [texts, tokens, width]; those of padding have no meaning."""
        hidden: Tensor = self.backbone(batch)
        return hidden

    def embed(self, batch: Batch, pool: str = "mean") -> Tensor:
        """Return one vector a text, [texts, width] float32; with `concat` three times as wide.

        Args:
            batch: The texts.
            pool: `mean`, `max`, `cls`, `concat`, or `pooler` where the backbone was built with it.
        """
        return self._pool(batch, pool).float()

    def groups(self) -> ParameterGroups:
        """Return (name, parameters) from bottom to top: the backbone's groups, then ("head", …)."""
        parameters = list(self.head.parameters()) if self.head is not None else self._native().head_parameters()
        return [*self.backbone.groups(), ("head", parameters)]

    def config(self) -> dict[str, Any]:
        """Return what `build_classifier` needs, as JSON."""
        return {
            "backbone": self.backbone.config(),
            "head": asdict(self.settings),
            "labels": list(self.labels.names),
            "multi_label": self.multi_label,
        }

    def _pool(self, batch: Batch, pool: str) -> Tensor:
        states = batch.states
        hidden = self.backbone(batch) if states is None else self.backbone.upper(batch, states, batch.depth)
        return self._pooled(batch, hidden, pool)

    def _pooled(self, batch: Batch, hidden: Tensor, pool: str) -> Tensor:
        if pool != "pooler":
            last = self.backbone.last_places(batch)
            return pool_hidden(hidden, self.backbone.pool_mask(batch), pool, last=last)
        pooled = self.backbone.pooled(batch, hidden)
        if pooled is None:
            raise ModelError(
                f"this {self.backbone.family!r} was built without its pooler",
                where="pool",
                next="use mean, max or cls, or train with head: {pool: pooler}",
            )
        return pooled

    def _native(self) -> NativeBackbone:
        if not isinstance(self.backbone, NativeBackbone):
            raise ModelError(f"the backbone {self.backbone.family!r} has no head of its own", where="head: native")
        return self.backbone


class BothWays(Classifier):
    """Two classifiers, one of which reads the texts forward and the other backward; their answers are averaged.

    Each learns from its own loss, as if it were alone; only the best checkpoint is chosen for both together.

    Args:
        forward_reader, backward_reader: Over the same words, with the same labels and heads.

    Source: Howard & Ruder 2018 (arXiv 1801.06146), section 3.3 (bidirectional language model).
    """

    def __init__(self, forward_reader: Classifier, backward_reader: Classifier) -> None:
        nn.Module.__init__(self)
        self.readers = nn.ModuleList([forward_reader, backward_reader])
        self.settings = forward_reader.settings
        self.labels = forward_reader.labels
        self.multi_label = forward_reader.multi_label
        self.head = None

    @property
    def backbone(self) -> Backbone:  # type: ignore[override]
        """The backbone that reads forward; the other differs in nothing that is asked of it from outside."""
        return self._readers()[0].backbone

    @property
    def needs_whole_step(self) -> bool:
        """Whether all texts of a step must go through together."""
        return self._readers()[0].needs_whole_step

    def forward(self, batch: Batch) -> Tensor:
        """Return logits, [texts, labels] float32, whose probabilities are the mean of the two readers' probabilities."""
        return self.joined(self.each_logits(batch))

    def each_logits(self, batch: Batch) -> list[Tensor]:
        """Return the logits of the two readers, each [texts, labels] float32."""
        return [reader(batch) for reader in self._readers()]

    def joined(self, each: Sequence[Tensor]) -> Tensor:
        """Return the logits of the mean of the probabilities."""
        if self.multi_label:
            yes, no = (torch.stack([functional.logsigmoid(sign * one) for one in each]) for sign in (1.0, -1.0))
            return yes.logsumexp(dim=0) - no.logsumexp(dim=0)
        return torch.stack([functional.log_softmax(one, dim=-1) for one in each]).logsumexp(dim=0)

    def clipped_together(self) -> list[list[nn.Parameter]]:
        """Return the parameters of each reader: the gradient of one says nothing of the other's."""
        return [list(reader.parameters()) for reader in self._readers()]

    def hidden(self, batch: Batch) -> Tensor:
        """Return the last hidden states of both, side by side: [texts, tokens, 2 x width]."""
        return torch.cat([reader.hidden(batch) for reader in self._readers()], dim=-1)

    def embed(self, batch: Batch, pool: str = "mean") -> Tensor:
        """Return one vector a text, [texts, 2 x width] float32: that of the forward reader, then the other's."""
        return torch.cat([reader.embed(batch, pool) for reader in self._readers()], dim=-1)

    def embedding_width(self, pool: str) -> int:
        """Return the size of a vector of `embed`."""
        return sum(reader.embedding_width(pool) for reader in self._readers())

    def groups(self) -> ParameterGroups:
        """Return (name, parameters) from bottom to top, each group of both readers together."""
        pairs = zip(*(reader.groups() for reader in self._readers()), strict=True)
        return [(name, [*forward, *backward]) for (name, forward), (_, backward) in pairs]

    def config(self) -> dict[str, Any]:
        """Return what `build_classifier` needs, as JSON."""
        return {"both_ways": [reader.config() for reader in self._readers()]}

    def _readers(self) -> list[Classifier]:
        return list(self.readers)  # type: ignore[arg-type]
