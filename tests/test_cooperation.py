"""Eq. 3 and 4: which part of the regularizer's gradient is used, for every rule and scope."""

import pytest
import torch
from torch import nn

from odm.settings.training import Cooperation
from odm.training import cooperation

# By layer: the gradient of the reconstruction and that of the regularizer.
A = (torch.tensor([1.0, -2.0, 3.0]), torch.tensor([2.0, 1.0, 1.0]))  # dot 3, two of three agree
B = (torch.tensor([1.0, 1.0]), torch.tensor([-4.0, 1.0]))  # dot -3, one of two agrees


def gradients(rule):
    """What `.grad` holds after a step in which layers a and b have the gradients above."""
    layers = {name: nn.Parameter(torch.zeros_like(pair[0])) for name, pair in (("a", A), ("b", B))}
    alone = nn.Parameter(torch.zeros(1))
    reconstruction = sum((layers[name] * pair[0]).sum() for name, pair in (("a", A), ("b", B))) + 5 * alone.sum()
    regularizer = sum((layers[name] * pair[1]).sum() for name, pair in (("a", A), ("b", B)))
    theta = {name: [layer] for name, layer in layers.items()} | {"alone": [alone]}
    pairs, _ = cooperation.backward(reconstruction, regularizer, theta, rule)
    assert alone.grad.item() == 5  # the regularizer does not reach it
    return layers["a"].grad, layers["b"].grad, pairs


def cos(a, b):
    return torch.dot(a, b) / (a.norm() * b.norm())


WHOLE = (torch.cat([A[0], B[0]]), torch.cat([A[1], B[1]]))
CASES = {
    ("always", "element"): (1.0, 1.0),
    ("sign", "element"): (torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0.0, 1.0])),
    ("sign", "layer"): (1.0, 0.0),
    ("sign", "network"): (0.0, 0.0),  # dot 0 over all
    ("cosine", "layer"): ((cos(*A) + 1) / 2, (cos(*B) + 1) / 2),
    ("cosine", "network"): ((cos(*WHOLE) + 1) / 2,) * 2,
}


@pytest.mark.parametrize(("rule", "scope"), CASES)
def test_weight_of_the_regularizer(rule, scope):
    weight_a, weight_b = CASES[rule, scope]
    a, b, _ = gradients(Cooperation(rule=rule, scope=scope))
    torch.testing.assert_close(a, A[0] + weight_a * A[1])
    torch.testing.assert_close(b, B[0] + weight_b * B[1])


def test_agreement_is_counted_by_element():
    *_, pairs = gradients(Cooperation())
    found = cooperation.agreement(pairs)
    assert found.share == pytest.approx(3 / 5)
    assert found.by_layer == pytest.approx({"a": 2 / 3, "b": 1 / 2})
    assert found.cosine == pytest.approx(cos(*WHOLE).item(), abs=1e-6)


def test_a_cosine_over_theta_counts_what_the_regularizer_does_not_reach():
    """Its gradient there is 0, so that the cosine is smaller: `alone` has 5 from the reconstruction."""
    a, _, pairs = gradients(Cooperation(rule="cosine", scope="network", cosine_over="theta"))
    whole = (torch.cat([WHOLE[0], torch.tensor([5.0])]), torch.cat([WHOLE[1], torch.zeros(1)]))
    assert pairs.keys() == {"a", "b", "alone"}
    torch.testing.assert_close(a, A[0] + (cos(*whole) + 1) / 2 * A[1])
    a, _, _ = gradients(Cooperation(rule="cosine", scope="network"))
    torch.testing.assert_close(a, A[0] + (cos(*WHOLE) + 1) / 2 * A[1])
