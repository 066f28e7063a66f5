"""Networks and their costs against the published figures (1280x720 output, a float operation as 32 x 32 bits)."""

import pytest
import torch
from torch import nn

from odm import kinds
from odm.errors import OdmError
from odm.methods.build import build as build_method
from odm.methods.plain.settings import Plain
from odm.networks.backbone import reflected
from odm.networks.build import build
from odm.networks.cost import cost
from odm.networks.edsr.settings import Edsr
from odm.networks.rdn.settings import Rdn
from odm.networks.srresnet.settings import Srresnet
from odm.networks.swinir.network import Layer, windows
from odm.networks.swinir.settings import Swinir
from odm.settings.training import Run

PAPER = {
    "edsr": Edsr(backbone="edsr", channels=64, blocks=16, scale=4),
    "rdn": Rdn(backbone="rdn", scale=4),
    "srresnet": Srresnet(backbone="srresnet", batch_norm=False, scale=4),
    "srresnet_bn": Srresnet(backbone="srresnet", scale=4),
    "swinir": Swinir(backbone="swinir", scale=4),
}
SMALL = {
    "edsr": Edsr(backbone="edsr", channels=8, blocks=2, scale=2),
    "rdn": Rdn(backbone="rdn", channels=8, growth=4, blocks=2, layers=3, scale=2),
    "srresnet": Srresnet(backbone="srresnet", channels=8, blocks=2, batch_norm=False, scale=2),
    "srresnet_bn": Srresnet(backbone="srresnet", channels=8, blocks=2, scale=2),
    "swinir": Swinir(backbone="swinir", channels=8, blocks=2, layers=2, heads=2, window=4, scale=2),
}
every_backbone = pytest.mark.parametrize("name", PAPER)


def at(settings, **changes):
    return build(settings.model_copy(update=changes))


def quantized(network, bits, coverage="blocks"):
    class Suite:
        methods = {"plain": Plain(kind="plain", coverage=coverage)}  # noqa: RUF012

    method = build_method(Suite, Run(network="n", method="plain", weight_bits=bits, activation_bits=bits), network)
    method._convert(method._activations(), {})
    return method


HALF_A_DIGIT = 0.005 + 1e-9  # of the table's last one
# Thousands of 32-bit equivalents, and 10^12 bit operations, at 32, 8, 4, 3 and 2 bits.
TABLE = {
    ("edsr", 4, "blocks", 32, 114.23): {
        32: (1517.57, 116.97), 8: (632.84, 51.74), 4: (485.38, 48.48), 3: (448.51, 48.01), 2: (411.65, 47.67)
    },
    ("edsr", 2, "blocks", 32, 316.25): {
        32: (1369.86, 323.84), 8: (485.12, 62.92), 4: (337.67, 49.87), 3: (300.80, 47.97), 2: (263.94, 46.61)
    },
    ("srresnet", 4, "blocks", 32, 127.77): {
        32: (1542.53, 130.83), 8: (657.79, 65.60), 4: (510.34, 62.34), 3: (473.47, 61.87), 2: (436.61, 61.53)
    },
    ("srresnet", 2, "blocks", 32, 332.17): {
        32: (1395.07, 340.15), 8: (510.34, 79.23), 4: (362.88, 66.18), 3: (326.02, 64.28), 2: (289.15, 62.92)
    },
    ("rdn", 4, "blocks", 146, 1309.21): {
        32: (22271.11, 1340.64), 8: (5826.69, 128.22), 4: (3085.95, 67.60), 3: (2400.77, 58.76), 2: (1715.59, 52.45)
    },
    ("rdn", 2, "blocks", 146, 5096.18): {
        32: (22123.40, 5218.49), 8: (5678.98, 368.84), 4: (2938.24, 126.35), 3: (2253.06, 90.99), 2: (1567.88, 65.73)
    },
    ("rdn", 4, "dense", 128, 1309.21): {
        32: (22271.11, 1340.64), 8: (6345.86, 166.50), 4: (3691.65, 107.79), 3: (3028.10, 99.23), 2: (2364.55, 93.11)
    },
}  # fmt: skip


@pytest.mark.parametrize(("row", "bits"), [(row, bits) for row, columns in TABLE.items() for bits in columns])
def test_costs_are_the_published_ones(row, bits):
    name, scale, coverage, layers, gmac = row
    network = at(PAPER[name], scale=scale)
    if bits < 32:
        assert len(quantized(network, bits, coverage).layers) == layers
    found = cost(network)
    storage_k, bitops_t = TABLE[row][bits]
    assert found.storage_k == pytest.approx(storage_k, abs=HALF_A_DIGIT)
    assert found.gmac == pytest.approx(gmac, abs=HALF_A_DIGIT)
    assert found.bitops_t == pytest.approx(bitops_t, abs=HALF_A_DIGIT)
    assert found.extra_storage_k == (0 if bits == 32 else 2 * layers / 1e3)


@pytest.mark.parametrize(("scale", "parameters"), [(4, 22271107), (2, 22123395)])
def test_parameters_of_rdn(scale, parameters):
    assert cost(at(PAPER["rdn"], scale=scale)).parameters == parameters


@pytest.mark.parametrize(("scale", "parameters"), [(4, 1542529), (2, 1395073)])
def test_parameters_of_srresnet(scale, parameters):
    """All weights, and one slope; batch normalization has a weight and a bias a channel in 33 places."""
    assert cost(at(PAPER["srresnet"], scale=scale)).parameters == parameters
    assert cost(at(PAPER["srresnet_bn"], scale=scale)).parameters == parameters + 33 * 128


@pytest.mark.parametrize(("scale", "published_k"), [(4, 897), (2, 878)])
def test_parameters_of_swinir_are_published_without_its_position_biases(scale, published_k):
    network = at(PAPER["swinir"], scale=scale)
    biases = sum(value.numel() for key, value in network.named_parameters() if key.endswith("layers.0.bias")) * 6
    assert biases == 24 * 15**2 * 6
    assert round((cost(network).parameters - biases) / 1e3) == published_k


def test_cost_of_swinir_counts_linear_layers_and_attention():
    """By hand, x4: 320 x 180 places; a place meets the 64 of its window twice, in 24 layers; attention is float."""
    network = at(PAPER["swinir"])
    places = 320 * 180
    linear, attention = 24 * (3 + 1 + 2 + 2) * 60 * 60, 24 * 2 * 64 * 60
    convolutions = 9 * (3 * 60 + 5 * 60 * 60 + 60 * 48)
    assert cost(network).gmac == pytest.approx(places * (linear + attention + convolutions) / 1e9)
    assert len(quantized(network, 4).layers) == 96
    found = cost(network)
    assert found.bitops_t == pytest.approx(places * (16 * linear + 1024 * (attention + convolutions)) / 1e12)
    assert found.storage_k == pytest.approx(929.628 - 24 * 8 * 3.6 * 7 / 8)


@every_backbone
def test_costs_do_not_depend_on_the_window_nor_touch_the_network(name):
    network = at(SMALL[name])
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = cost(network)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    if name == "swinir":  # 7 does not divide the side that is run
        other = cost(at(SMALL[name], window=7))
        assert other.gmac > found.gmac
        attention = 4 * 2 * 8 * 640 * 360 / 1e9
        assert other.gmac - 49 * attention == pytest.approx(found.gmac - 16 * attention)


@every_backbone
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_enlarges_by_its_scale_whatever_the_size(name, scale):
    network = at(SMALL[name], scale=scale).eval()
    for height, width in [(9, 12), (8, 8), (3, 17), (1, 2)]:
        image = torch.rand(2, 3, height, width) * 255
        output = network(image)
        assert output.shape == (2, 3, height * scale, width * scale)
        torch.testing.assert_close(output[1:], network(image[1:]), rtol=1e-4, atol=1e-2)


@every_backbone
@pytest.mark.parametrize("coverage", ["blocks", "body", "shortcuts", "dense"])
def test_placements_name_layers_of_the_network(name, coverage):
    network = at(SMALL[name])
    if name == "swinir" and coverage == "shortcuts":
        with pytest.raises(OdmError, match=r"swinir has no 'shortcuts'; use"):
            network.placement(coverage)
        return
    placement = network.placement(coverage)
    layers = [*placement.layers, *placement.weights_only]
    assert len(set(layers)) == len(layers)
    assert all(isinstance(network.get_submodule(each), nn.Conv2d | nn.Linear) for each in layers)
    assert all(type(network.get_submodule(each)) is nn.Identity for each in placement.sites)
    assert set(layers) <= {*network.placement("body").layers, *placement.weights_only}
    order = [each for each, _ in network.named_modules()]
    assert placement.layers == sorted(placement.layers, key=order.index)
    assert type(network.features) is nn.Identity


@pytest.mark.parametrize(
    ("name", "coverage", "layers", "weights_only", "sites"),
    [
        ("edsr", "body", 33, 0, 0),
        ("edsr", "shortcuts", 16, 16, 32),
        ("edsr", "dense", 32, 0, 0),
        ("rdn", "body", 146, 0, 0),
        ("rdn", "shortcuts", 129, 17, 16),  # 145 quantizers of activations, as many as DDTB has
        ("srresnet", "body", 33, 0, 0),
        ("srresnet", "shortcuts", 32, 0, 0),  # DDTB's 32
        ("srresnet_bn", "blocks", 32, 0, 0),
        ("swinir", "body", 101, 0, 0),
        ("swinir", "dense", 96, 0, 0),
    ],
)
def test_how_many_are_quantized(name, coverage, layers, weights_only, sites):
    placement = build(PAPER[name]).placement(coverage)
    assert tuple(map(len, (placement.layers, placement.weights_only, placement.sites))) == (layers, weights_only, sites)


def test_settings_are_what_networks_take():
    assert {settings.backbone for settings in PAPER.values()} | {"custom"} == set(kinds.names("networks"))


@every_backbone
def test_the_seed_alone_decides_the_first_weights(name):
    def state(seed):
        torch.rand(3)  # draws elsewhere must not matter
        return torch.cat([value.flatten() for value in at(SMALL[name], seed=seed).parameters()])

    assert torch.equal(state(1), state(1))
    assert not torch.equal(state(1), state(2))


def test_reflection_goes_on_where_the_image_is_short():
    row = torch.arange(3.0).view(1, 1, 1, 3)
    assert reflected(row, 8)[0, 0, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert reflected(row, 8).shape == (1, 1, 8, 8)
    wide = torch.rand(1, 1, 8, 13)
    assert torch.equal(reflected(wide, 8), nn.functional.pad(wide, (0, 3, 0, 0), mode="reflect"))


def test_windows():
    pixels = torch.arange(24).view(1, 4, 6, 1)
    assert windows(pixels, 2)[0, :, :, 0].tolist()[:2] == [[0, 1, 6, 7], [2, 3, 8, 9]]


@pytest.mark.parametrize("shift", [0, 2])
def test_attention_place_by_place(shift):
    """Each place attends to those of its window, as written for one place; shifting wraps nothing around."""
    torch.manual_seed(0)
    layer = Layer(channels=6, heads=2, window=4, ratio=2, shift=shift).double()
    nn.init.normal_(layer.bias)
    nn.init.normal_(layer.qkv.weight)
    height, width, size = 8, 12, 4
    x = torch.randn(1, height, width, 6, dtype=torch.double)
    query, key, value = layer.qkv(x[0]).split(6, dim=-1)

    def window(row, column):
        return (row + size - shift) // size, (column + size - shift) // size

    places = [(row, column) for row in range(height) for column in range(width)]
    expected = torch.empty(height, width, 6, dtype=torch.double)
    for row, column in places:
        near = [place for place in places if window(*place) == window(row, column)]
        for head, part in enumerate((slice(0, 3), slice(3, 6))):
            scores = torch.stack(
                [
                    query[row, column, part] @ key[r, c, part] / 3**0.5
                    + layer.bias[(row - r + size - 1) * (2 * size - 1) + column - c + size - 1, head]
                    for r, c in near
                ]
            )
            values = torch.stack([value[r, c, part] for r, c in near])
            expected[row, column, part] = scores.softmax(0) @ values
    torch.testing.assert_close(layer.attend(x)[0], layer.proj(expected))
