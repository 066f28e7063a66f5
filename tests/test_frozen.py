"""Networks of which a part is frozen: it stays as it is, in every method, and the rest learns."""

from pathlib import Path

import pytest
import torch
from test_combinations import EACH
from trial import QAT

from odm.errors import OdmError
from odm.methods.build import method_class
from odm.methods.odm_eccv.settings import OdmEccv
from odm.networks.custom.network import Custom
from odm.quantization.statistics import measured
from odm.settings.training import Cooperation, Run
from odm.training.loop import fit

MODULE = """
import torch
from torch import nn


class MeanShift(nn.Conv2d):
    '''As in the repositories of this field.'''

    def __init__(self, sign):
        super().__init__(3, 3, 1)
        self.weight.data = torch.eye(3).view(3, 3, 1, 1)
        self.bias.data = sign * torch.tensor([0.45, 0.44, 0.4])
        self.requires_grad_(False)


class Net(nn.Module):
    def __init__(self, frozen=()):
        super().__init__()
        self.sub_mean, self.add_mean = MeanShift(-1), MeanShift(1)
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)))
        self.features = nn.Identity()
        self.tail = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2))
        for name in frozen:
            self.get_submodule(name).requires_grad_(False)

    def forward(self, x):
        y = self.head(self.sub_mean(x))
        for layer in self.body:
            y = y + layer(torch.relu(y))
        return self.add_mean(self.tail(self.features(y)))
"""


def network(folder: Path, *frozen: str) -> Custom:
    (folder / "net.py").write_text(MODULE)
    torch.manual_seed(3)
    made = Custom(
        str(folder / "net.py"),
        "Net",
        {"frozen": list(frozen)},
        ["body.*"],
        value_range="0-1",
        features="features",
        multiple=1,
        scale=2,
    )
    return made.to(memory_format=torch.channels_last)


def trained(made: Custom, settings, batches, folder: Path) -> dict[str, bool]:
    """Whether each tensor of the network moved, by its name before quantization."""
    before = {name: value.clone() for name, value in made.state_dict().items()}
    layers = measured(made, made.placement("body").layers, [batches(1000)[0]], percentile=99)
    settings = settings.model_copy(update={"coverage": "blocks"})
    run = Run(network="n", method="m", weight_bits=4, activation_bits=4)
    method = method_class(settings.kind)(made, settings, run)
    method.prepare(layers, [batches(2000 + step)[0] for step in range(2)])
    method.watch()
    fit(made, batches, method.parameter_groups(QAT), QAT, method, folder / "last", "id")
    after = {name.replace(".layer.", "."): value for name, value in made.state_dict().items()}
    return {name: not torch.equal(after[name], value) for name, value in before.items()}


@pytest.mark.parametrize("kind", EACH)
def test_what_is_frozen_stays_and_the_rest_learns(kind: str, batches, tmp_path: Path) -> None:
    """A mean shift, and one of the quantized layers."""
    moved = trained(network(tmp_path, "body.1"), EACH[kind], batches, tmp_path)
    still = {name for name, has in moved.items() if not has}
    shifts = {f"network.{name}.{part}" for name in ("sub_mean", "add_mean") for part in ("weight", "bias")}
    assert still == shifts | {"network.body.1.weight", "network.body.1.bias"}


def test_a_student_drawn_anew_keeps_what_is_frozen(batches, tmp_path: Path) -> None:
    settings = EACH["pams"].model_copy(update={"student": "random"})
    moved = trained(network(tmp_path), settings, batches, tmp_path)
    assert {name for name, has in moved.items() if not has} == {
        f"network.{name}.{part}" for name in ("sub_mean", "add_mean") for part in ("weight", "bias")
    }


@pytest.mark.parametrize("scope", ["element", "layer", "network"])
@pytest.mark.parametrize("kind", ["odm", "odm_eccv"])
def test_a_regularizer_that_reaches_nothing_that_learns(kind: str, scope: str, batches, tmp_path: Path) -> None:
    """All is frozen up to the last quantized layer."""
    rule = Cooperation(rule="sign", scope=scope)
    settings = EACH[kind].model_copy(update={"cooperation": rule})
    moved = trained(network(tmp_path, "head", "body"), settings, batches, tmp_path)
    assert {name for name, has in moved.items() if has} == {"network.tail.0.weight", "network.tail.0.bias"}


def test_ranges_follow_a_regularizer_that_reaches_nothing_else(batches, tmp_path: Path) -> None:
    settings = OdmEccv(kind="odm_eccv", regularized_ranges="direct")
    assert settings.cooperation.scope == "network"
    assert trained(network(tmp_path, "head", "body"), settings, batches, tmp_path)["network.tail.0.weight"]


def test_gammas_of_frozen_layers_may_be_in_theta(batches, tmp_path: Path) -> None:
    settings = OdmEccv(kind="odm_eccv", theta="gammas", regularized_ranges="direct")
    assert trained(network(tmp_path, "body.1"), settings, batches, tmp_path)["network.body.0.weight"]


def test_a_network_all_frozen_is_refused_as_it_is_built(tmp_path: Path) -> None:
    """So in `odm check` too, which builds it."""
    with pytest.raises(OdmError, match=r"net\.py: every parameter of Net is frozen, so nothing can be trained; leave"):
        network(tmp_path, "head", "body", "tail")
