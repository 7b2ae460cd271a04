"""Parameters by depth, for gradual unfreezing and learning rates that fall with depth."""

from torch import nn


def depth_groups(model: nn.Module) -> list[list[str]]:
    """Return the names of a model's parameters in groups, from the input to the output.

    A numbered layer, such as ``blocks.2``, is a group. So are all parameters before the first of these
    (embeddings) and all behind the last (norm and head). Without numbered layers every module is a group;
    the layers of a recurrent network, which are one module, are one group.
    """
    names = [name for name, _ in model.named_parameters()]
    layers = {name: _numbered_layer(name) for name in names}
    numbered = [at for at, name in enumerate(names) if layers[name]]
    groups: dict[str, list[str]] = {}
    for at, name in enumerate(names):
        if not numbered:
            key = name.partition(".")[0]
        elif at < numbered[0]:
            key = "input"
        elif at > numbered[-1]:
            key = "output"
        else:
            key = layers[name] or name.partition(".")[0]
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def _numbered_layer(name: str) -> str:
    """Return the part of a parameter's name up to its first number, or nothing: ``blocks.2`` of a block."""
    parts = name.split(".")
    at = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
    return "" if at is None else ".".join(parts[: at + 1])
