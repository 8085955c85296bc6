"""A sample of a model's weights: enough to tell whether a layer has learnt, without keeping a second model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

# A share of the change is told well enough from so many weights of each parameter.
_SAMPLED = 256


@dataclass(frozen=True)
class Sample:
    """A few hundred weights of each parameter.

    Attributes:
        groups: Values by layer group and parameter's place in it, float32.
    """

    groups: dict[str, list[torch.Tensor]]

    @classmethod
    def of(cls, model: Any) -> Sample:
        """Return the sample of a Classifier as it is now."""
        return cls({name: [_sampled(p) for p in parameters] for name, parameters in model.groups()})

    def change(self, later: Sample) -> dict[str, float]:
        """Return how far each group has moved since, relative to its size: |later - now| / |now|, from 0."""
        found = {}
        for name, values in self.groups.items():
            now, then = torch.cat(values), torch.cat(later.groups[name])
            found[name] = float((then - now).norm() / now.norm().clamp(min=1e-12))
        return found


def _sampled(parameter: nn.Parameter) -> torch.Tensor:
    flat = parameter.detach().flatten()
    return flat[:: max(1, len(flat) // _SAMPLED)].float().cpu().clone()
