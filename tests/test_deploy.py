"""The integer form: which levels and codes, how values flow, what is refused, and that nothing in it rounds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import trial
from test_networks import SMALL
from torch import nn
from trial import NETWORK, ODM, PLAIN, trained

from odm.deploy import packed
from odm.deploy.exact import integer_form
from odm.deploy.fixed import FixedLayer
from odm.deploy.flow import Flow
from odm.deploy.integer import IntegerLayer, codes, integer_layers, weighted
from odm.deploy.levels import codes_of, levels_of
from odm.deploy.margins import LEAST, apart, margin
from odm.deploy.plan import plan, probe
from odm.errors import OdmError
from odm.methods.build import method_class
from odm.methods.daq.settings import Daq
from odm.methods.ddtb.settings import Ddtb
from odm.methods.no_body.settings import NoBody
from odm.methods.odm.settings import Odm, Offsets
from odm.methods.odm_eccv.settings import OdmEccv
from odm.methods.pams.settings import Pams
from odm.methods.per_channel.settings import PerChannel
from odm.methods.plain.settings import Plain
from odm.model import Model
from odm.networks.backbone import Backbone
from odm.networks.build import build
from odm.networks.edsr.network import Edsr
from odm.quantization.layer import QuantizedLayer, quantized_layers
from odm.quantization.quantizer import LearnedRange, WeightQuantizer
from odm.quantization.statistics import measured
from odm.settings.training import Run

SHIFTS = Odm(kind="odm", offsets=Offsets(share=1.0, kind="shift", undone=True))
POWERS = Odm(
    kind="odm",
    offsets=Offsets(share=1.0, undone=True, powers_of_two=True),
    pads="quantized_zero",
    rectified_lower="zero",
)
CHANNEL = Plain(kind="plain", weight_range="mse", weight_granularity="channel")
RUN = Run(network="n", method="m", weight_bits=4, activation_bits=4)


def lows(side: int = 24, count: int = 3) -> list[torch.Tensor]:
    """Smooth images with noise, (1, 3, side, side)."""
    generator = torch.Generator().manual_seed(5)
    found = []
    for _ in range(count):
        coarse = torch.rand(1, 3, side // 4, side // 4, generator=generator) * 255
        fine = torch.rand(1, 3, side, side, generator=generator) * 30
        found.append((nn.functional.interpolate(coarse, scale_factor=4) + fine).round().clamp(0, 255))
    return found


def quantized(network: Backbone, settings: Any, bits: int = 4, images: list[torch.Tensor] | None = None) -> Backbone:
    """A float network as a method starts to train it."""
    images = images or lows(16 * network.multiple)
    run = RUN.model_copy(update={"weight_bits": bits, "activation_bits": bits})
    method = method_class(settings.kind)(network, settings, run)
    layers = measured(network, method.names, images, 99) if method.needs_mismatch else {}
    method.prepare(layers, images)
    return network.eval()


# Levels and codes


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(("lower", "upper"), [(-1.0, 2.0), (0.0, 3.7), (-5.1, -0.3), (0.9, 2.0), (-0.04, 1.0)])
def test_levels_are_those_of_the_quantizer(bits: int, lower: float, upper: float) -> None:
    quantizer = LearnedRange(bits)
    quantizer.set_range(lower, upper)
    levels = levels_of(quantizer, 3, "it")
    assert levels.most - levels.least == 2**bits - 1
    assert abs(levels.rest) <= levels.step / 2 * 1.001
    expected = torch.linspace(lower, upper, 2**bits)
    found = torch.arange(levels.least, levels.most + 1) * levels.step + levels.rest
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 7])
def test_weights_are_odd_codes(bits: int) -> None:
    weight = WeightQuantizer(bits)(torch.randn(8, 8, 3, 3))
    found, unit = codes_of(weight, "it")
    torch.testing.assert_close(found.double() * unit.view(-1, 1, 1, 1), weight.double(), atol=1e-6, rtol=1e-6)
    assert (unit == unit[0]).all()
    assert found.abs().max() == 2**bits - 1 and (found % 2 != 0).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 7])
@pytest.mark.parametrize("shape", [(8, 8, 3, 3), (6, 1, 3, 3), (5, 16)])
def test_channels_have_units_of_their_own(bits: int, shape: tuple[int, ...]) -> None:
    """One of next to no weights has none: nothing else could be written in its unit."""
    weight = torch.randn(shape) * torch.logspace(-2, 0, shape[0]).view(-1, *[1] * (len(shape) - 1))
    weight[1] *= 1e-5
    quantized = WeightQuantizer(bits, "mse", granularity="channel")(weight)
    found, unit = codes_of(quantized, "it")
    assert unit.shape == shape[:1] and not found[1].any()
    again = found.double() * unit.view(-1, *[1] * (len(shape) - 1))
    torch.testing.assert_close(again, quantized.double(), atol=1e-5, rtol=1e-6)
    assert unit.amin() > 1e-6 and found.abs().max() <= 2**bits - 1


def test_what_no_int8_code_holds_is_refused() -> None:
    with pytest.raises(OdmError, match="it: its weights need codes up to 255"):
        codes_of(WeightQuantizer(8)(torch.randn(8, 8, 3, 3)), "it")
    with pytest.raises(OdmError, match="it: its weights lie on no even grid"):
        codes_of(torch.randn(8, 8, 3, 3), "it")
    assert codes_of(torch.zeros(2, 2), "it")[0].eq(0).all()


def test_margins_hold_for_every_value_that_comes_up() -> None:
    unit = torch.tensor([0.0501, 0.0731, 0.5], dtype=torch.float64)
    quantizer = LearnedRange(4)
    quantizer.set_range(0.0, 15.0)
    levels = levels_of(quantizer, 1, "it")
    moved = apart(unit, 1.0, levels, rectified=True)
    assert moved is not None
    assert (moved / unit.float() - 1).abs().max() < 1e-3
    assert margin(moved, 1.0, 0, 15) >= LEAST > margin(unit.float(), 1.0, 0, 15)
    every = torch.arange(0, 400)[:, None] * moved.double()
    assert ((every / 1.0 - (every / 1.0).floor() - 0.5).abs()[every < 15]).min() >= LEAST


# How values flow


def test_a_layer_behind_a_relu_reads_one_other_directly() -> None:
    network = quantized(build(NETWORK), PLAIN)
    found = plan(network, Flow(network, probe(network)))
    assert found.direct == {f"blocks.{each}.conv2": (f"blocks.{each}.conv1", True) for each in range(2)}
    assert found.floats == ["head", "last", "upsampler.0", "tail"] and found.in_stream == {"head"}


def test_what_is_joined_is_read_from_the_stream() -> None:
    network = quantized(build(SMALL["rdn"]), PLAIN)
    found = plan(network, Flow(network, probe(network)))
    assert found.direct == {"fusion.1": ("fusion.0", False)}
    assert found.in_stream == {"second"}


# The form itself


def float_free(form: Backbone) -> bool:
    kinds = nn.Conv2d | nn.Linear | nn.BatchNorm2d | QuantizedLayer
    return not any(isinstance(each, kinds) for each in form.modules())


FORMS: dict[str, Callable[[], Backbone]] = {
    "edsr": lambda: quantized(build(NETWORK), PLAIN),
    "direct": lambda: quantized(build(NETWORK.model_copy(update={"upsampler": "pixelshuffledirect"})), PLAIN),
    "body": lambda: quantized(build(NETWORK), Plain(kind="plain", coverage="body")),
    "offsets": lambda: quantized(build(NETWORK), ODM),
    "undone": lambda: quantized(build(NETWORK), SHIFTS),
    "powers": lambda: quantized(build(NETWORK), POWERS),
    "channel": lambda: quantized(build(NETWORK), CHANNEL),
    "channel_2": lambda: quantized(build(NETWORK), CHANNEL, 2),
    "eccv": lambda: quantized(build(NETWORK), OdmEccv(kind="odm_eccv"), 2),
    "pams": lambda: quantized(build(NETWORK), Pams(kind="pams", coverage="blocks")),
    "ddtb": lambda: quantized(build(NETWORK), Ddtb(kind="ddtb", coverage="blocks", dynamic_share=0.0)),
    "srresnet": lambda: quantized(build(SMALL["srresnet"]), PLAIN),
    "srresnet_bn": lambda: quantized(build(SMALL["srresnet_bn"]), PLAIN),
    "rdn": lambda: quantized(build(SMALL["rdn"]), PLAIN),
}
every_form = pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)


@every_form
@torch.inference_mode()
def test_the_form_is_near_the_network_and_sums_in_any_order(make: Callable[[], Backbone]) -> None:
    network = make()
    images = lows()
    form = integer_form(network, images)
    assert float_free(form) and len(integer_layers(form)) == len(quantized_layers(network))
    doubled = _in_double(form)
    for image in images:
        ours = form(image)
        error = (ours - network(image)).square().mean().sqrt()
        assert error < 0.15 * network(image).std()  # a float network of no training: codes flip at thresholds
        # In float64 no sum rounds: where float32 gives the same, none has rounded there.
        torch.testing.assert_close(ours.double(), doubled(image.double()), atol=0, rtol=0)
        flipped = form(image.flip(-1).contiguous(memory_format=torch.channels_last))
        assert flipped.isfinite().all()


def _in_double(form: Backbone) -> Backbone:
    """The same with all of its float32 in float64, but for what a direct unit rounds to."""
    import copy

    made = copy.deepcopy(form).double()
    for module in made.modules():
        if isinstance(module, IntegerLayer):
            module.forward = _double_forward(module)  # type: ignore[method-assign]
    return made


def _double_forward(layer: IntegerLayer) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        padding = layer.padding
        if layer.pads_input:
            x, padding = nn.functional.pad(x, (padding[1], padding[1], padding[0], padding[0])), [0, 0]
        shape = (-1, 1, 1) if layer.step.ndim else ()
        found = ((x - layer.origin.view(shape)) / layer.step.view(shape)).round().clamp(layer.least, layer.most)
        total = nn.functional.conv2d(
            found, layer.weight.double(), None, layer.stride, padding, layer.dilation, layer.groups
        )
        unit, bias = layer.unit.view(-1, 1, 1), layer.bias.view(-1, 1, 1).double()
        if layer.grid:
            return total * unit + bias * layer.grid
        return ((total + bias).float() * unit.float()).double()

    return forward


def test_a_trained_network_keeps_its_score(batches: Any, float_state: Any, layers: Any, tmp_path: Path) -> None:
    method = trial.quantized(PLAIN, float_state, layers, batches, 4)
    trained(method, batches, tmp_path / "saved")
    network = method.network.eval()
    images = [batches(3000 + step) for step in range(4)]
    form = integer_form(network, [low for low, _ in images])
    with torch.inference_mode():
        errors = [
            torch.stack([(each(low) - high).square().mean() for low, high in images]).mean() for each in (network, form)
        ]
    assert abs(10 * torch.log10(errors[0] / errors[1])) < 0.02


def test_codes_round_halves_to_even_and_clip() -> None:
    x = torch.tensor([-9.0, -0.5, 0.5, 1.5, 2.5, 99.0]).view(1, 1, 1, -1)
    found = codes(x, torch.tensor(0.0), torch.tensor(1.0), -2, 3, 1)
    assert found.flatten().tolist() == [-2, 0, 0, 2, 2, 3]
    by_channel = codes(torch.ones(1, 2, 1, 1), torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.5]), 0, 9, 1)
    assert by_channel.flatten().tolist() == [0, 2]


def test_a_bias_is_in_units_of_the_sum_or_of_the_grid() -> None:
    one = torch.ones(1, 1, 1, 1)
    arguments = (one.to(torch.int8), torch.tensor([0.5]), torch.tensor([3], dtype=torch.int32))
    geometry = ([1, 1], [0, 0], [1, 1], 1)
    assert weighted(one, *arguments, 0.0, *geometry).item() == (1 + 3) * 0.5
    assert weighted(one, *arguments, 0.25, *geometry).item() == 0.5 + 3 * 0.25


def test_fixed_layers_are_exact() -> None:
    network = quantized(build(NETWORK), PLAIN)
    form = integer_form(network, lows())
    fixed = [each for each in form.modules() if isinstance(each, FixedLayer)]
    assert len(fixed) == 4
    for layer in fixed:
        whole = layer.weight.double() / layer.low_grid
        assert (whole == whole.round()).all() and whole.abs().max() < 2**15


# What is refused


class Soft(Edsr):
    """A softmax before its blocks."""

    def __init__(self) -> None:
        super().__init__(channels=8, blocks=1, scale=2)
        self.soft = nn.Softmax(-1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(self.upsampler(self.blocks[0](self.soft(self.head(x - self.mean))))) + self.mean


REFUSED: list[tuple[Callable[[], Backbone], str]] = [
    (
        lambda: quantized(build(NETWORK), Daq(kind="daq")),
        r"blocks.0.conv1: its levels are found anew for each image",
    ),
    (
        lambda: quantized(build(NETWORK), Ddtb(kind="ddtb", coverage="blocks", dynamic_share=1.0)),
        "its levels are found anew for each image",
    ),
    (lambda: quantized(build(NETWORK), PerChannel(kind="per_channel")), "a range for each channel"),
    (lambda: quantized(build(NETWORK), Pams(kind="pams")), "its activations are float"),
    (
        lambda: quantized(build(NETWORK), Odm(kind="odm", offsets=Offsets(share=1.0, kind="scale", undone=True))),
        "undone and are no powers of two",
    ),
    (lambda: quantized(build(NETWORK), PLAIN, 8), "need codes up to 255"),
    (lambda: quantized(build(NETWORK), NoBody(kind="no_body")), "nothing in it is quantized"),
    (lambda: build(NETWORK).eval(), "nothing in it is quantized"),
    (lambda: quantized(Soft(), PLAIN), "its input comes from soft, a softmax"),
]


@pytest.mark.parametrize(("make", "says"), REFUSED)
def test_what_has_no_integer_form_is_refused_in_one_line(make: Callable[[], Backbone], says: str) -> None:
    network = make()
    with pytest.raises(OdmError, match=says) as caught:
        integer_form(network, lows(16 * network.multiple))
    assert "\n" not in str(caught.value)


def test_float_weights_are_refused() -> None:
    network = build(NETWORK)
    method = method_class("plain")(network, PLAIN, RUN.model_copy(update={"weight_bits": 32}))
    method.prepare({}, lows())
    with pytest.raises(OdmError, match=r"blocks\.0\.conv1: its weights are float"):
        integer_form(network, lows())


def test_a_stream_beyond_24_bits_is_refused() -> None:
    network = quantized(build(NETWORK), PLAIN)
    with torch.no_grad():
        network.blocks[1].conv1.activation.upper.fill_(network.blocks[1].conv1.activation.lower.item() + 0.01)  # type: ignore
    with pytest.raises(OdmError, match=r"blocks\.1\.conv1: the residual stream passes 24 bits"):
        integer_form(network, lows())


def test_undone_scales_that_are_powers_of_two_go_into_the_weights() -> None:
    form = FORMS["powers"]()
    assert max(layer.weight.abs().max() for layer in integer_layers(integer_form(form, lows())).values()) > 15


@pytest.mark.parametrize("bits", [2, 4, 7])
def test_scales_as_far_apart_as_can_be_are_trained_within_eight_bits(bits: int) -> None:
    network = quantized(build(NETWORK), POWERS, bits)
    with torch.no_grad():
        for layer in quantized_layers(network).values():
            layer.offset.scale.copy_(torch.logspace(-3, 3, len(layer.offset.scale), 2.0))  # type: ignore[union-attr]
    codes = [layer.weight for layer in integer_layers(integer_form(network, lows())).values()]
    assert 60 < max(code.abs().max() for code in codes) <= 127


def test_a_network_trained_towards_it_has_the_levels_of_its_form() -> None:
    """What surrounds an input is quantized with it, as whole numbers have it: less is moved than by zeros."""

    def moved(pads: str) -> float:
        network = quantized(build(NETWORK), PLAIN.model_copy(update={"pads": pads}), 2)
        return float((integer_form(network, lows())(lows()[0]) - network(lows()[0])).detach().abs().mean())

    assert moved("quantized_zero") < moved("zero")


# Packed


@every_form
def test_packed_is_the_same_form(make: Callable[[], Backbone], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    network = make()
    kind = request.node.callspec.id
    settings = SMALL.get(kind, NETWORK)
    if kind == "direct":
        settings = NETWORK.model_copy(update={"upsampler": "pixelshuffledirect"})
    about = Model(
        name="it", network=settings, method=PLAIN, run=RUN, trained_on=["mine"], scores={}, settings="0", licence="CC0"
    )
    form = integer_form(network, lows())
    path = tmp_path / "it.odmi"
    packed.write(path, about, form)
    said, again = packed.read(path)
    assert said == about == packed.about(path)
    assert str(again) == str(form)
    state = again.state_dict()
    assert state.keys() == form.state_dict().keys()
    for key, value in form.state_dict().items():
        assert torch.equal(state[key], value), key
    with torch.inference_mode():
        assert torch.equal(form(lows()[0]), again(lows()[0]))
    packed.write(tmp_path / "again.odmi", said, again)
    assert (tmp_path / "again.odmi").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("width", range(1, 9))
def test_codes_take_their_true_width(width: int) -> None:
    values = torch.randint(0, 2**width, (101,)).numpy()
    content = packed.pack(values, width)
    assert len(content) == -(-101 * width // 8)
    assert (packed.unpack(content, width, 101) == values).all()


@pytest.mark.parametrize(("channels", "blocks", "most"), [(64, 16, 1.03), (32, 5, 1.08)])
def test_a_packed_file_is_hardly_more_than_its_numbers(channels: int, blocks: int, most: float, tmp_path: Path) -> None:
    settings = NETWORK.model_copy(update={"channels": channels, "blocks": blocks})
    network = quantized(build(settings), PLAIN, 2, lows(8, 1))
    form = integer_form(network, lows(8, 1))
    about = Model(
        name="it", network=settings, method=PLAIN, run=RUN, trained_on=["mine"], scores={}, settings="0", licence="CC0"
    )
    packed.write(tmp_path / "it.odmi", about, form)
    theory = 0.0
    for layer in quantized_layers(network).values():
        theory += (
            layer.layer.weight.numel() * 2 / 8 + 4 * len(layer.layer.weight) + 4 * 3
        )  # ranges: l, u and the weights'
    for name in ("head", "last", "upsampler.0", "tail"):
        theory += 4 * sum(each.numel() for each in network.get_submodule(name).parameters())
    assert (tmp_path / "it.odmi").stat().st_size < most * theory


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "it.odmi"
    about = Model(name="it", network=NETWORK, method=PLAIN, run=RUN, trained_on=[], scores={}, settings="", licence="")
    packed.write(path, about, integer_form(quantized(build(NETWORK), PLAIN), lows()))
    content = path.read_bytes()
    for wrong in (content[:-1], content[:50], b"", content[:300] + bytes([content[300] ^ 1]) + content[301:]):
        path.write_bytes(wrong)
        with pytest.raises(OdmError, match=r"it\.odmi: damaged, or none of `odm export`"):
            packed.read(path)
    with pytest.raises(OdmError, match="no such file"):
        packed.read(tmp_path / "gone.odmi")
