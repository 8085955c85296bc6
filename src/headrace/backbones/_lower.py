"""An encoder cut between two layers: hidden states caught on their way up, and taken up again there later.

Layers that do not learn give the same hidden states for a text again and again. Those of one pass can be kept, and the
layers above them run from there. The model's own code runs unchanged: for one call the modules below hand the given
states on, and the first layer above them gets them as its input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from headrace.backbones._layers import layer_list

# What a family that is laid out otherwise may die of, in code that is not ours.
MISFITS = (TypeError, ValueError, LookupError, AttributeError, RuntimeError)


@dataclass(frozen=True, eq=False)
class Layers:
    """The layers of one encoder, and what stands before them.

    Attributes:
        below: Modules that compute what the first layer gets: embeddings and their projections.
        layers: From bottom to top.
        n_answers: How many things a layer returns, the hidden states first; 0 where it is the states alone.
    """

    below: tuple[nn.Module, ...]
    layers: tuple[nn.Module, ...]
    n_answers: int

    @classmethod
    def of(cls, encoder: nn.Module, run: Callable[[], object]) -> Layers | None:
        """Return the layers of an encoder, or None where there are none to cut between.

        Args:
            encoder: The model.
            run: Takes a few tokens through it, so that it is seen what a layer returns.
        """
        found = layer_list(encoder)
        if found is None or len(found[1]) < 2:
            return None
        name, layers = found
        below = []
        for child_name, child in encoder.named_children():
            if child_name == name.split(".")[0]:
                break
            below.append(child)
        answers: list[object] = []
        handle = layers[0].register_forward_hook(lambda module, args, answer: answers.append(answer))
        try:
            run()
        finally:
            handle.remove()
        return cls(tuple(below), tuple(layers), len(answers[0]) if isinstance(answers[0], tuple) else 0)


@contextmanager
def catching(layers: Layers, depths: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Inside the block a forward pass fills the mapping: by depth k the hidden states that layer k gets.

    Args:
        layers: Of the encoder that is run.
        depths: How many layers lie below the states that are wanted, from 0 to the number of layers less one.
    """
    found: dict[int, Tensor] = {}

    def catch(depth: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found[depth] = args[0] if args else kwargs["hidden_states"]

        return hook

    handles = [layers.layers[depth].register_forward_pre_hook(catch(depth), with_kwargs=True) for depth in depths]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def starting_at(layers: Layers, depth: int, states: Tensor) -> Iterator[None]:
    """Inside the block a forward pass computes nothing below layer `depth`, which gets the given states.

    Args:
        layers: Of the encoder that is run; its parameters and state dict stay as they are.
        depth: How many layers are left out, from 0 to the number of layers less one.
        states: What that layer gets, as the encoder lays out its hidden states.
    """

    def put(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})

    # The layer takes the states itself, not what is handed up to it: after the first layer of a DeBERTa comes a
    # convolution, which the states at depth 1 have behind them.
    handle = layers.layers[depth].register_forward_pre_hook(put, with_kwargs=True)
    answer = (states, *[None] * (layers.n_answers - 1)) if layers.n_answers else states
    left_out: list[tuple[nn.Module, object]] = [(module, states) for module in layers.below]
    left_out += [(module, answer) for module in layers.layers[:depth]]
    own = [vars(module).get("forward") for module, _ in left_out]
    for module, handed_on in left_out:
        vars(module)["forward"] = _handing_on(handed_on)
    try:
        yield
    finally:
        handle.remove()
        for (module, _), forward in zip(left_out, own, strict=True):
            del vars(module)["forward"]
            if forward is not None:
                vars(module)["forward"] = forward


@contextmanager
def changing(layer: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside the block the hidden states that a layer returns are changed before anything else sees them."""

    def hook(module: nn.Module, args: tuple[Any, ...], answer: Any) -> Any:
        return (change(answer[0]), *answer[1:]) if isinstance(answer, tuple) else change(answer)

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _handing_on(answer: object) -> Any:
    def forward(*args: Any, **kwargs: Any) -> object:
        return answer

    return forward
