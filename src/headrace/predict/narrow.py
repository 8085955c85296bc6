"""A twin of a classifier whose matrices are in 16 bits already, for answers one at a time."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import TypeGuard

import torch
from torch import Tensor, nn

from headrace import matmul
from headrace.backbones._written import SelfAttention
from headrace.model import Classifier

#: Passes of several Python threads take turns: how a model computes is changed for a pass, and it computes on all cores.
ONE_AT_A_TIME = threading.RLock()


class Narrowed:
    """Keeps a twin of a classifier with the weights of its linear layers in bfloat16; all else is the classifier's own.

    Autocast makes the same 16-bit weights in each pass, and forgets them: of a short text that is a third of the time.
    On a CPU oneDNN lays a weight out anew in each product, too; the twin's lie as they are wanted, those of queries, keys and
    values as one, and an activation is computed with the product before it. Its scores are autocast's but for a rounding
    to 16 bits less before each activation. It is made at its first use, and anew when a weight was changed or moved.
    """

    def __init__(self) -> None:
        self._made_of: tuple[tuple[int, int], ...] = ()
        self._twin: Classifier | None = None

    def of(self, classifier: Classifier) -> Classifier:
        """Return the twin of the classifier as it is now."""
        with ONE_AT_A_TIME:
            return self._of(classifier)

    def _of(self, classifier: Classifier) -> Classifier:
        wide = [weight for weight in _linear_weights(classifier) if weight.dtype == torch.float32]
        made_of = tuple((weight.data_ptr(), _version(weight)) for weight in wide)
        if self._twin is None or made_of != self._made_of:
            _find_how_to_score(classifier)
            shared = {id(tensor): tensor for tensor in (*classifier.parameters(), *classifier.buffers())}
            for weight in wide:
                shared[id(weight)] = nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=False)
            self._twin, self._made_of = copy.deepcopy(classifier, shared), made_of
            if matmul.lays_out():
                lay_out(self._twin)
        return self._twin


class LaidOut(nn.Module):
    """A linear layer whose 16-bit weight lies as oneDNN wants it for its products on this processor.

    Args:
        linear: With a weight in bfloat16, on the CPU; several are one layer, whose outputs stand behind each other.
    """

    def __init__(self, *linear: nn.Linear) -> None:
        super().__init__()
        biases = [one.bias for one in linear if one.bias is not None]
        self.weight = matmul.lay_out(torch.cat([one.weight.detach() for one in linear]))
        self.bias = torch.cat([one.detach() for one in biases]) if biases else None

    def forward(self, input: Tensor) -> Tensor:
        """Return the product, [..., outputs] bfloat16."""
        return matmul.times_laid_out(input.to(torch.bfloat16), self.weight, self.bias)

    def activated(self, input: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor | None:
        """Return the activation of the product; None for one that cannot be computed with it."""
        name = matmul.ACTIVATIONS.get(activation)
        if name is None or not matmul.activates(name):
            return None
        return matmul.times_laid_out(input.to(torch.bfloat16), self.weight, self.bias, name)


def lay_out(model: nn.Module) -> None:
    """Exchange the linear layers in bfloat16 on the CPU for `LaidOut` ones, in place."""
    for module in list(model.modules()):
        if isinstance(module, SelfAttention):
            parts = [part for name in module.PROJECTIONS if _is_narrow(part := module.get_submodule(name))]
            if len(parts) == 3 and len({part.bias is None for part in parts}) == 1:
                module.joined = LaidOut(*parts)
                for name in module.PROJECTIONS:
                    delattr(module, name)
        for name, child in module.named_children():
            if _is_narrow(child):
                setattr(module, name, LaidOut(child))


def _is_narrow(module: nn.Module) -> TypeGuard[nn.Linear]:
    if type(module) is not nn.Linear:
        return False
    return module.weight.dtype == torch.bfloat16 and module.weight.device.type == "cpu"


def each_module(model: nn.Module) -> list[nn.Module]:
    """Return the parts of a model; `modules()` looks for those that stand in it twice, as long as a short text takes."""
    found = [model]
    for module in found:  # grows while it is gone through
        found.extend(child for child in module._modules.values() if child is not None)
    return found


def _find_how_to_score(classifier: Classifier) -> None:
    """Let the backbone try whether it can pack, which needs its weights in 32 bits; the twin takes over what it found."""
    if next(classifier.parameters()).device.type == "cpu":
        for first_alone in {False, classifier.backbone.first_alone}:
            with classifier.backbone.scoring_on_cpu(first_alone=first_alone):
                pass


def _linear_weights(model: nn.Module) -> list[nn.Parameter]:
    linear = (module for module in each_module(model) if type(module) is nn.Linear)
    return [weight for module in linear for weight in module._parameters.values() if weight is not None]


def _version(weight: nn.Parameter) -> int:
    """Return how often a weight was changed in place; of one made in inference mode that is not known."""
    return 0 if weight.is_inference() else weight._version
