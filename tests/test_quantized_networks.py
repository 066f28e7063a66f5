"""Each backbone, small, quantized and trained a little: linear layers and batch normalization are the new cases."""

import pytest
import torch
from test_networks import SMALL, at, every_backbone
from torch import nn
from torch.nn import functional

from odm.methods.build import method_class
from odm.methods.odm.settings import Odm, Offsets
from odm.methods.plain.settings import Plain
from odm.networks import weights
from odm.quantization.layer import QuantizedLayer, quantized_layers
from odm.quantization.offsets import Offset
from odm.quantization.quantizer import LearnedRange, WeightQuantizer
from odm.quantization.statistics import channels_first, measured, of_activation
from odm.settings.training import Qat, Run
from odm.training.loop import fit

RUN = Run(network="n", method="m", weight_bits=4, activation_bits=4)
QAT = Qat(steps=4, batch=2, patch=8, rate=0.001, schedule="cosine", log_every=2)
ODM = Odm(kind="odm", strength=0.01, offsets=Offsets(share=0.5, undone=True))


def batches(step):
    generator = torch.Generator().manual_seed(step)
    high = torch.rand(2, 3, 16, 16, generator=generator) * 255
    return functional.avg_pool2d(high, 2), high


def prepared(name, settings, network=None):
    network = network or at(SMALL[name])
    lows = [batches(100 + step)[0] for step in range(2)]
    method = method_class(settings.kind)(network, settings, RUN)
    method.prepare(measured(network, network.placement("body").layers, lows, percentile=99), lows)
    method.watch()
    return method


def trained(method, saved, batches=batches):
    return fit(method.network, batches, method.parameter_groups(QAT), QAT, method, saved, "id")


@pytest.mark.parametrize(("name", "coverage"), [(name, each) for name in SMALL for each in SMALL[name].coverages])
def test_forward_and_backward_are_finite(name, coverage):
    method = prepared(name, Plain(kind="plain", coverage=coverage))
    low, high = batches(0)
    loss = (method.network(low) - high).abs().mean()
    loss.backward()
    gradients = {key: each.grad for key, each in method.network.named_parameters()}
    assert loss.isfinite()
    assert all(each is not None and each.isfinite().all() for each in gradients.values())
    placement = method.placement
    assert repr(method.network).count("W4A4") == len(placement.layers)
    assert repr(method.network).count("W4A32") == len(placement.weights_only)
    assert len(method.quantizers) == len(placement.layers) + len(placement.sites)


@every_backbone
@pytest.mark.parametrize("settings", [Plain(kind="plain"), ODM], ids=["plain", "odm"])
def test_a_stored_network_gives_the_same_pixels(name, settings, tmp_path):
    method = prepared(name, settings)
    history = trained(method, tmp_path / "last")
    assert all(torch.tensor(list(row.values())).isfinite().all() for row in history)
    weights.save(tmp_path / "weights", method.network, "digest")
    again = method_class(settings.kind)(at(SMALL[name]), settings, RUN)
    again.restore(weights.load(tmp_path / "weights", "digest"))
    low = batches(0)[0][:, :, :7, :5]
    assert torch.equal(again.network.eval()(low), method.network.eval()(low))
    assert list(quantized_layers(again.network)) == method.names


@pytest.mark.parametrize("name", ["srresnet_bn", "swinir"])
def test_killed_and_resumed_equals_undisturbed(name, tmp_path):
    whole = prepared(name, ODM)
    history = trained(whole, tmp_path / "whole")

    def until(step):
        if step == 3:
            raise KeyboardInterrupt
        return batches(step)

    with pytest.raises(KeyboardInterrupt):
        trained(prepared(name, ODM), tmp_path / "cut", until)
    resumed = prepared(name, ODM)
    assert trained(resumed, tmp_path / "cut") == history
    expected = whole.network.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in resumed.network.state_dict().items())


def test_batch_normalization_moves_in_training_alone(tmp_path):
    """Mismatch and calibration see the network as it infers, and leave its running statistics as they are."""
    network = at(SMALL["srresnet_bn"])
    network.norm.running_mean.fill_(3.0)
    method = prepared("srresnet_bn", Plain(kind="plain"), network)
    assert network.norm.running_mean.unique().tolist() == [3.0]
    assert network.norm.num_batches_tracked == 0
    assert network.training
    trained(method, tmp_path / "last")
    assert network.norm.num_batches_tracked == QAT.steps
    assert len(network.norm.running_mean.unique()) > 1


def linear(offset=None):
    torch.manual_seed(0)
    activation = LearnedRange(4)
    activation.set_range(-2.0, 2.0)
    return QuantizedLayer(nn.Linear(6, 5), activation, WeightQuantizer(4), offset)


@pytest.mark.parametrize("shape", [(3, 6), (2, 7, 6), (2, 4, 3, 6), (2, 3, 2, 2, 6)])
@pytest.mark.parametrize("undone", [False, True])
def test_a_linear_layer_is_a_convolution_of_one_pixel(shape, undone):
    """Quantizer, offset and what the layer keeps take the last axis for the channels, whatever the shape."""
    torch.manual_seed(1)
    offset = Offset(torch.linspace(-1, 1, 6), torch.linspace(0.5, 2, 6), 8, undone)
    layer = linear(offset)
    layer.keeps_input = True
    convolution = nn.Conv2d(6, 5, 1)
    convolution.weight.data = layer.layer.weight.data[:, :, None, None]
    convolution.bias.data = layer.layer.bias.data
    same = QuantizedLayer(convolution, layer.activation, layer.weight, offset)
    x = torch.randn(shape, requires_grad=True)
    as_map = x.reshape(shape[0], -1, 6).transpose(1, 2)[..., None]
    y = layer(x)
    assert y.shape == (*shape[:-1], 5)
    expected = same(as_map)[..., 0].transpose(1, 2).reshape(y.shape)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], torch.autograd.grad(expected.sum(), x)[0])
    assert torch.equal(layer.input, as_map)


def test_statistics_of_a_linear_layer_are_by_its_channels():
    x = torch.randn(2, 5, 7, 6) * torch.arange(1, 7) + torch.arange(6)
    found = of_activation(channels_first(nn.Linear(6, 1), x), 99)
    torch.testing.assert_close(found.channel_means, x.mean(dim=(0, 1, 2)))
    torch.testing.assert_close(found.channel_deviations, x.flatten(0, 2).std(dim=0, correction=0))


@pytest.mark.parametrize("undone", [None, False, True])
def test_surroundings_are_quantized_where_asked(undone):
    """Zeros around what is quantized, unless an offset that is taken back makes its own of them."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(4, 5, 3, padding=(1, 0))
    activation = LearnedRange(2)
    activation.set_range(0.5, 2.0)  # no level at zero
    offset = None if undone is None else Offset(torch.linspace(-1, 1, 4), torch.linspace(0.5, 2, 4), 8, undone)
    layer = QuantizedLayer(convolution, activation, None, offset)
    layer.pads_quantized, layer.carries = True, True
    x = torch.randn(2, 4, 6, 7)
    wide = nn.functional.pad(x, (0, 0, 1, 1))
    if offset is None:
        seen = activation(wide)
    elif undone:
        seen = offset.undo(activation(offset(wide)))
    else:
        seen = activation(nn.functional.pad(offset(x), (0, 0, 1, 1)))
    torch.testing.assert_close(layer(x), nn.functional.conv2d(seen, convolution.weight, convolution.bias))
    assert torch.equal(layer.carried, seen[:, :, 1:-1])
