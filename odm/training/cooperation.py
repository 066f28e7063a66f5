"""Cooperative regularization: the regularizer's gradient is used where it agrees with the reconstruction's (Eq. 4)."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from odm.quantization.quantizer import ranges_fixed
from odm.settings.training import Cooperation

# By layer, the gradients of reconstruction and regularizer, flattened.
Pairs = dict[str, tuple[Tensor, Tensor]]
# Of the regularizer, by parameter; None where it does not reach one.
Gradients = dict[nn.Parameter, Tensor | None]


@dataclass(frozen=True)
class Agreement:
    """How the two gradients of one step lie to each other.

    `cosine` is that of all parameters together; `share` that of gradient elements with equal sign, by layer and in all.
    """

    cosine: float
    share: float
    by_layer: dict[str, float]


def backward(
    reconstruction: Tensor,
    regularizer: Tensor | None,
    theta: Mapping[str, Sequence[nn.Parameter]],
    rule: Cooperation,
    followers: Mapping[str, Sequence[nn.Parameter]] | None = None,
    through_ranges: bool = False,
    kept: Gradients | None = None,
) -> tuple[Pairs, Gradients]:
    """Fill `.grad` with gR + w gV, from one forward pass and two backward passes.

    Args:
        reconstruction, regularizer: scalar losses of the same forward pass.
        theta: by layer, the parameters that the regularizer may move; all others follow the reconstruction.
        rule: what w is; for `sign` 1 where the compared scope agrees and 0 where not, for `cosine` (cos + 1) / 2.
        followers: by layer, parameters that the regularizer moves too, with the w of their layer or network, to which
            they have no say; with one of their own where elements are compared or nothing of their layer is.
        through_ranges: whether bounds have a part in the regularizer's gradient.
        kept: gradients of the regularizer from an earlier step, to be used instead of its own, which is then not asked.

    Returns:
        By layer of theta that is compared, the two gradients before they were joined, flattened; and those of the
        regularizer by parameter.
    """
    followers = followers or {}
    flat = [parameter for group in (theta, followers) for layer in group.values() for parameter in layer]
    of = kept
    if of is None:
        assert regularizer is not None
        with nullcontext() if through_ranges else ranges_fixed():
            regular = torch.autograd.grad(regularizer, flat, retain_graph=True, allow_unused=True)
        of = dict(zip(flat, regular, strict=True))
    reconstruction.backward()
    unreached = rule.rule == "cosine" and rule.cosine_over == "theta"

    def paired(group: Mapping[str, Sequence[nn.Parameter]]) -> tuple[dict[str, list[nn.Parameter]], Pairs]:
        members = {}
        pairs = {}
        for name, layer in group.items():
            found = [(each, each.grad, of[each]) for each in layer]
            reached = [
                (parameter, gradient, torch.zeros_like(gradient) if other is None else other)
                for parameter, gradient, other in found
                if gradient is not None and (other is not None or unreached)
            ]
            if reached:
                members[name] = [parameter for parameter, _, _ in reached]
                pairs[name] = (
                    torch.cat([gradient.flatten() for _, gradient, _ in reached]),
                    torch.cat([other.flatten() for _, _, other in reached]),
                )
        return members, pairs

    def join(members: Mapping[str, list[nn.Parameter]], pairs: Pairs, weights: Mapping[str, Tensor | float]) -> None:
        for name, reached in members.items():
            joined = pairs[name][0] + weights[name] * pairs[name][1]
            for parameter, gradient in zip(reached, joined.split([each.numel() for each in reached]), strict=True):
                parameter.grad.copy_(gradient.view_as(parameter))  # type: ignore[union-attr]

    members, pairs = paired(theta)
    weights = _weights(pairs, rule)
    join(members, pairs, weights)
    members, following = paired(followers)
    if following:
        own = _weights(following, rule)
        if rule.scope == "network" and weights:
            own = dict.fromkeys(following, next(iter(weights.values())))
        elif rule.scope == "layer":
            own |= {name: weight for name, weight in weights.items() if name in own}
        join(members, following, own)
    return pairs, of


def _weights(pairs: Mapping[str, tuple[Tensor, Tensor]], rule: Cooperation) -> dict[str, Tensor | float]:
    if rule.rule == "always" or not pairs:
        return dict.fromkeys(pairs, 1.0)
    if rule.scope == "element":
        return {name: (a * b > 0).to(a.dtype) for name, (a, b) in pairs.items()}
    compared = pairs if rule.scope == "layer" else {"": _joined(pairs)}
    if rule.rule == "sign":
        of: dict[str, Tensor | float] = {name: (torch.dot(a, b) > 0).to(a.dtype) for name, (a, b) in compared.items()}
    else:
        of = {name: (_cosine(a, b) + 1) / 2 for name, (a, b) in compared.items()}
    return of if rule.scope == "layer" else dict.fromkeys(pairs, of[""])


def _joined(pairs: Mapping[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([a for a, _ in pairs.values()]), torch.cat([b for _, b in pairs.values()])


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(a, b, dim=0)


def agreement(pairs: Mapping[str, tuple[Tensor, Tensor]]) -> Agreement:
    """Figures for the history, of the gradients that `backward` returned."""
    a, b = _joined(pairs)

    def share(a: Tensor, b: Tensor) -> float:
        return (a * b > 0).double().mean().item()

    return Agreement(_cosine(a, b).item(), share(a, b), {name: share(*pair) for name, pair in pairs.items()})
