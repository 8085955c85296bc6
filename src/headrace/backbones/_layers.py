"""Finds the layers of an encoder by its structure, and groups its parameters from bottom to top."""

from __future__ import annotations

from torch import nn

from headrace.backbones._base import ParameterGroups

# Parts that registration order puts above the layers, though every layer reads them: relative positions.
_BELOW_THE_LAYERS = ("embed", "relative")


def layer_list(model: nn.Module) -> tuple[str, nn.ModuleList] | None:
    """Return the name and the list of an encoder's layers: the outermost `ModuleList` with the most parameters."""
    best: tuple[str, nn.ModuleList] | None = None
    most = 0
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList):
            n_parameters = sum(parameter.numel() for parameter in module.parameters())
            if n_parameters > most:  # strictly more: of nested lists with equal content the outer one comes first
                best, most = (name, module), n_parameters
    return best


def group_parameters(model: nn.Module) -> ParameterGroups:
    """Return ("embeddings", …), ("layer 0", …) … ("layer n-1", …); each parameter in exactly one group.

    With the embeddings go what was registered before the layers (projections of the embeddings) and relative
    positions with all that stands beside them (DeBERTa); with the last layer go final norms and poolers.
    """
    found = layer_list(model)
    if found is None:
        return [("embeddings", list(model.parameters()))]
    list_name, layers = found
    bottom: list[nn.Parameter] = []
    top: list[nn.Parameter] = []
    groups: ParameterGroups = [(f"layer {i}", list(layer.parameters())) for i, layer in enumerate(layers)]
    in_layers = {id(parameter) for _, parameters in groups for parameter in parameters}
    parent = list_name.rpartition(".")[0]
    embeds_beside = bool(parent) and any(
        part in name for name, _ in model.get_submodule(parent).named_children() for part in _BELOW_THE_LAYERS
    )
    is_before = True
    for name, parameter in model.named_parameters():
        if id(parameter) in in_layers:
            is_before = False
        elif (
            is_before
            or any(part in name for part in _BELOW_THE_LAYERS)
            or (embeds_beside and name.startswith(f"{parent}."))
        ):
            bottom.append(parameter)
        else:
            top.append(parameter)
    groups[-1][1].extend(top)
    return [("embeddings", bottom), *groups]
