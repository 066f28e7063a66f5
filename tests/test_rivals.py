"""PAMS, DAQ and DDTB trained on a photograph: phases, what is stored, costs, settings."""

from collections import defaultdict

import pytest
import torch
import trial
from skimage import data
from test_networks import SMALL
from torch import nn
from trial import NETWORK, QAT, equal, killed_and_resumed, state, trained

from odm.errors import OdmError
from odm.methods.build import method_class
from odm.methods.daq.quantizer import DistributionRange
from odm.methods.daq.settings import Daq
from odm.methods.ddtb.bounds import Gate
from odm.methods.ddtb.settings import Ddtb
from odm.methods.pams.quantizer import peak
from odm.methods.pams.settings import Pams
from odm.networks.build import build
from odm.networks.cost import cost
from odm.networks.edsr.settings import Edsr
from odm.networks.rdn.settings import Rdn
from odm.networks.srresnet.settings import Srresnet
from odm.settings.reading import load
from odm.settings.training import Run

PAMS = Pams(kind="pams", calibration_steps=6)
DAQ = Daq(kind="daq")
DDTB = Ddtb(kind="ddtb", gate_steps=6, initial="percentile", dynamic_share=0.5)
RIVALS = {"pams": PAMS, "daq": DAQ, "ddtb": DDTB}

every_rival = pytest.mark.parametrize("settings", RIVALS.values(), ids=RIVALS)


@pytest.fixture(scope="module")
def photograph():
    """Part of another image, (1, 3, 48, 48)."""
    part = torch.tensor(data.astronaut()[100:148, 200:248]).permute(2, 0, 1)[None]
    return part.float().contiguous(memory_format=torch.channels_last)


def quantized(settings, float_state, batches, bits=2, **widths):
    """Rivals look at no measured mismatch."""
    return trial.quantized(settings, float_state, defaultdict(dict), batches, bits, **widths)


@torch.inference_mode()
def pixels(network, images):
    return network.eval()(images).round().clamp(0, 255)


@every_rival
@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("coverage", ["own", "blocks"])
def test_the_loss_falls(settings, bits, coverage, float_state, batches, tmp_path):
    if coverage != "own":
        settings = settings.model_copy(update={"coverage": coverage})
    method = quantized(settings, float_state, batches, bits)

    @torch.inference_mode()
    def loss():
        method.network.eval()
        pairs = [batches(3000 + step) for step in range(10)]
        return sum((method.network(low) - high).abs().mean().item() for low, high in pairs) / len(pairs)

    before = loss()
    trained(method, batches, tmp_path / "last", steps=40, log_every=40)
    assert all(torch.isfinite(value).all() for value in state(method).values())
    assert loss() < before


@every_rival
@pytest.mark.parametrize("widths", [(32, 3), (3, 32)])
def test_either_side_may_stay_float(settings, widths, float_state, batches, tmp_path):
    method = quantized(settings, float_state, batches, weight_bits=widths[0], activation_bits=widths[1])
    history = trained(method, batches, tmp_path / "last")
    assert all(layer.bits[0] == widths[0] for layer in method.layers.values())
    assert all(torch.isfinite(torch.tensor(row["loss"])) for row in history)


@every_rival
def test_killed_and_resumed_equals_undisturbed(settings, float_state, batches, tmp_path):
    """Cut before, at and after the step in which a phase ends."""
    killed_and_resumed(lambda: quantized(settings, float_state, batches), batches, tmp_path)


@every_rival
def test_looking_changes_nothing(settings, float_state, batches, tmp_path):
    """How often the history is written is no matter to what is learned."""
    often, seldom = quantized(settings, float_state, batches), quantized(settings, float_state, batches)
    trained(often, batches, tmp_path / "often", log_every=1)
    trained(seldom, batches, tmp_path / "seldom", log_every=12)
    assert equal(state(often), state(seldom))


@every_rival
def test_a_stored_state_gives_the_same_pixels(settings, float_state, batches, tmp_path, photograph):
    method = quantized(settings, float_state, batches)
    trained(method, batches, tmp_path / "last")
    network = build(NETWORK).to(memory_format=torch.channels_last)
    again = method_class(settings.kind)(network, settings, method.run)
    again.restore(state(method))
    assert equal(state(again), state(method))
    assert torch.equal(pixels(again.network, photograph), pixels(method.network, photograph))


def test_pams_alpha_is_the_last_peak_and_then_learns(float_state, batches, tmp_path):
    method = quantized(PAMS, float_state, batches)
    trained(method, batches, tmp_path / "last", steps=6, log_every=6)
    last = [peak(layer.input).item() for layer in method.layers.values() if layer.activation]
    found = [layer.activation.alpha.item() for layer in method.layers.values() if layer.activation]
    assert found == last
    longer = quantized(PAMS, float_state, batches)
    trained(longer, batches, tmp_path / "longer", steps=9, log_every=9)
    values = [layer.activation.alpha.item() for layer in longer.layers.values() if layer.activation]
    peaks = [
        layer.input.abs().amax(dim=(1, 2, 3)).mean().item() for layer in longer.layers.values() if layer.activation
    ]
    assert all(value != each for value, each in zip(values, peaks, strict=True))


@pytest.mark.parametrize("settings", [PAMS, DDTB], ids=["pams", "ddtb"])
def test_the_teacher_is_the_float_network_and_stays_it(settings, float_state, batches, tmp_path):
    method = quantized(settings, float_state, batches)
    trained(method, batches, tmp_path / "last")
    teacher = method.distillation.teacher
    assert equal(dict(teacher.state_dict()), float_state)
    assert not any(key.startswith("teacher") for key in state(method))
    assert not {id(each) for each in teacher.parameters()} & {
        id(each) for group in method.parameter_groups(QAT) for each in group["params"]
    }


def test_the_distillation_joins_the_loss(float_state, batches):
    low, high = batches(0)
    grads = []
    for weight in (0.0, 1000.0, 2000.0):
        method = quantized(PAMS.model_copy(update={"distillation": weight}), float_state, batches)
        method.begin(0)
        method.network.train()
        method.backward((method.network(low) - high).abs().mean())
        grads.append(method.network.last.weight.grad)
    assert (method.distillation is None, grads[0].equal(grads[1])) == (False, False)
    torch.testing.assert_close(grads[2] - grads[1], grads[1] - grads[0], rtol=1e-2, atol=1e-4)


def test_a_random_student_has_a_trained_teacher(float_state, batches):
    method = quantized(PAMS.model_copy(update={"student": "random"}), float_state, batches)
    again = quantized(PAMS.model_copy(update={"student": "random"}), float_state, batches)
    assert torch.equal(method.network.head.weight, again.network.head.weight)
    assert not torch.equal(method.network.head.weight, float_state["head.weight"])
    assert equal(dict(method.distillation.teacher.state_dict()), float_state)


def test_ddtb_gates_stand_where_extremes_vary_most(float_state, batches):
    method = quantized(DDTB, float_state, batches)
    gated = {name: each.gate is not None for name, each in method.bounds().items()}
    variation = {name: each.variation for name, each in method.bounds().items()}
    assert sum(gated.values()) == int(0.5 * len(gated)) == 3
    assert min(variation[name] for name in gated if gated[name]) >= max(
        variation[name] for name in gated if not gated[name]
    )


def test_ddtb_gates_are_held_at_0_and_then_used(float_state, batches, tmp_path):
    settings = DDTB.model_copy(update={"gate_steps": 12, "gate_strength": 30.0})
    method = quantized(settings, float_state, batches)
    assert {id(p) for p in method.parameter_groups(QAT)[0]["params"]} >= {
        id(p) for gate in method.gates() for p in gate.parameters()
    }

    def answers():
        method.network(batches(0)[0])
        return sum(each.answer.square().mean() for each in method.bounds().values() if each.gate is not None)

    before = answers()
    trained(method, batches, tmp_path / "last", rate=0.01)
    assert answers() < 0.5 * before
    assert all(gate.used == 0 for gate in method.gates())
    method.begin(12)
    assert all(gate.used == 1 for gate in method.gates())


@pytest.mark.parametrize(
    ("initial", "bits", "constant"), [("by_bits", 2, False), ("by_bits", 3, True), ("constant", 2, True)]
)
def test_ddtb_first_bounds(initial, bits, constant, float_state, batches):
    method = quantized(DDTB.model_copy(update={"initial": initial}), float_state, batches, bits)
    found = {(each.lower.item(), each.upper.item()) for each in method.bounds().values()}
    assert (found == {(-10.0, 10.0)}) == constant


def at_full_size(settings, network_settings, bits=2):
    network = build(network_settings)
    run = Run(network="n", method="m", weight_bits=bits, activation_bits=bits)
    method = method_class(settings.kind)(network, settings, run)
    low = torch.rand(1, 3, 12, 12) * 255
    method.prepare(defaultdict(dict), [low])
    return method


def test_costs_of_ddtb():
    method = at_full_size(Ddtb(kind="ddtb"), Edsr(backbone="edsr", channels=64, blocks=16, scale=4))
    assert (len(method.bounds()), len(method.gates())) == (48, 14)
    assert sum(gate.storage() for gate in method.gates()) == 1848
    found = cost(method.network)
    assert found.extra_storage_k == pytest.approx(1.848 + 0.096)
    assert found.parameters == 1_517_571
    assert found.extra_bitops_t == pytest.approx(14 * 64 * 320 * 180 * 1024 / 1e12)


@pytest.mark.parametrize("bits", [2, 4])
def test_costs_of_daq(bits):
    method = at_full_size(DAQ, Edsr(backbone="edsr", channels=64, blocks=16, scale=4), bits)
    found = cost(method.network)
    assert (found.extra_storage_k, round(found.extra_bitops_t, 2)) == (0, 0.48)
    assert found.storage_k == pytest.approx({2: 411.65, 4: 485.38}[bits], abs=0.005)


def test_costs_of_pams():
    method = at_full_size(Pams(kind="pams"), Edsr(backbone="edsr", channels=64, blocks=16, scale=4))
    found = cost(method.network)
    assert (found.extra_storage_k, found.extra_bitops_t) == (0.048, 0)
    # The first convolution of a block takes what it is given: 2 bits times 32.
    assert found.bitops_t > 47.67


@pytest.mark.parametrize(
    ("network", "settings", "quantizers"),
    [
        (Rdn(backbone="rdn", scale=4, channels=8, growth=8), Ddtb(kind="ddtb", dynamic_share=0.5), (145, 72)),
        (Srresnet(backbone="srresnet", scale=4, channels=8), Ddtb(kind="ddtb", dynamic_share=0.1), (32, 3)),
        (Rdn(backbone="rdn", scale=4, channels=8, growth=8), DAQ, (128, 0)),
    ],
)
def test_quantizers_of_other_networks(network, settings, quantizers):
    method = at_full_size(settings, network)
    gated = len(method.gates()) if isinstance(settings, Ddtb) else 0
    assert (len(method.quantizers), gated) == quantizers


@every_rival
@pytest.mark.parametrize("name", SMALL)
def test_every_backbone_learns(settings, name):
    """Linear layers and batch normalization too; a network with no such placement takes the blocks'."""
    coverage = settings.coverage if settings.coverage in SMALL[name].coverages else "blocks"
    network = build(SMALL[name]).eval()
    run = Run(network="n", method="m", weight_bits=2, activation_bits=2)
    method = method_class(settings.kind)(network, settings.model_copy(update={"coverage": coverage}), run)
    low = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 255
    method.prepare(defaultdict(dict), [low])
    network.train()
    for step in (0, 6):  # both phases
        network.zero_grad()
        method.begin(step)
        method.backward(network(low).abs().mean())
        found = {name: each.grad for name, each in network.named_parameters()}
        reached = [each for each in found.values() if each is not None]
        assert len(reached) > len(found) / 2 and all(each.isfinite().all() for each in reached)
    again = method_class(settings.kind)(build(SMALL[name]), method.settings, run)
    again.restore(state(method))
    assert torch.equal(pixels(again.network, low), pixels(network, low))


def test_daq_adapts_image_by_image():
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    quantizer = DistributionRange(2, 4, "published", True)
    torch.testing.assert_close(quantizer(x * 3), quantizer(x) * 3)
    assert not list(quantizer.parameters())


@pytest.mark.parametrize(
    ("kind", "key"), [("pams", "weight_bits"), ("pams", "activation_bits"), ("daq", "activation_bits")]
)
def test_one_bit_is_refused_where_there_are_no_levels(kind, key, tmp_path):
    bits = {"weight_bits": 2, "activation_bits": 2} | {key: 1}
    with pytest.raises(OdmError, match=rf"runs\.r\.{key}: '{kind}' has no levels at 1 bit; give it 2 or more"):
        load(suite(tmp_path, f"{{kind: {kind}}}", **bits))


def test_one_bit_is_allowed_where_there_are(tmp_path):
    for method in ("{kind: daq, steps: optimal}", "{kind: ddtb}"):
        load(suite(tmp_path, method, weight_bits=1, activation_bits=1))


def suite(folder, method, **bits):
    path = folder / "params.yaml"
    path.write_text(
        f"""
suite: trial
images: {{train: [skimage_train], test: [skimage_test], scales: [2]}}
networks: {{n: {{backbone: edsr, channels: 8, blocks: 2, scale: 2}}}}
pretraining: {{steps: 1, batch: 1, patch: 8, rate: 0.1, schedule: step}}
mismatch: {{batches: 1}}
qat: {{steps: 1, batch: 1, patch: 8, rate: 0.1, schedule: step}}
methods: {{m: {method}}}
runs: {{r: {{network: n, method: m, weight_bits: {bits["weight_bits"]}, activation_bits: {bits["activation_bits"]}}}}}
"""
    )
    return path


def test_the_released_gate_learns_in_its_last_layer_alone():
    means = torch.randn(4, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    released, learned = Gate(8, 99.0).train(), Gate(8, 99.0, released=False).train()
    for gate in (released, learned):
        gate(means).square().sum().backward()
    assert released.reduce.grad is None and released.norm.weight.grad is None and released.norm.bias.grad is None
    assert released.expand.grad.abs().sum() > 0
    assert all(each.grad.abs().sum() > 0 for each in (learned.reduce, learned.expand, learned.norm.weight))
    largest = released.reduce.detach().abs().max()
    found = released._weight(released.reduce)
    assert set((found / largest).unique().tolist()) == {-1.0, 0.0, 1.0}
    torch.testing.assert_close(found, (released.reduce / largest).round() * largest)
    assert len(learned._weight(learned.reduce).unique()) == 4


@pytest.mark.parametrize(("penalty", "share"), [("mean", 1 / 3), ("sum", 1.0)])
def test_the_penalty_on_gates_is_their_mean_or_their_sum(penalty, share, float_state, batches):
    changes = {"gate_penalty": penalty, "gate_strength": 2.0, "distillation": 0.0, "gate_steps": 5}
    method = quantized(DDTB.model_copy(update=changes), float_state, batches)
    method.begin(0)
    method.network.train()
    method.network(batches(0)[0])
    squares = [each.answer.square().mean().item() for each in method.bounds().values() if each.gate is not None]
    assert len(squares) == 3
    assert method.penalty().item() == pytest.approx(2.0 * share * sum(squares), rel=1e-5)


@pytest.mark.parametrize("settings", [PAMS, DDTB], ids=["pams", "ddtb"])
@torch.no_grad()
def test_rdn_carries_quantized_values_on(settings):
    """As `x = act(x); cat(x, conv(x))` has it: what is quantized is quantized again in each later layer."""
    method = at_full_size(settings, SMALL["rdn"])
    for index, quantizer in enumerate(method.quantizers):  # as learned: on equal grids twice is as once
        for bound in (each for each in quantizer.parameters() if each.ndim == 0):
            bound.mul_(0.5 + 0.1 * (index % 7))
    network = method.network.eval()
    x = torch.rand(2, 3, 10, 9, generator=torch.Generator().manual_seed(1)) * 255

    def ran(layer, given):
        quantized = given if layer.activation is None else layer.activation(given)
        conv = layer.layer
        return quantized, nn.functional.conv2d(quantized, layer.weight(conv.weight), conv.bias, padding=conv.padding)

    shallow = network.head(x - network.mean)
    deep, outputs = network.second(shallow), []
    for block in network.blocks:
        seen = start = block.input(deep)
        for dense in block.dense:
            seen, grown = ran(dense, seen)
            seen = torch.cat([seen, torch.relu(grown)], dim=1)
        deep = start + ran(block.fusion, seen)[1]
        outputs.append(deep)
    deep = torch.cat(outputs, dim=1)
    for fusion in network.fusion:
        deep = ran(fusion, deep)[1]
    expected = network.tail(network.upsampler(deep + shallow)) + network.mean
    torch.testing.assert_close(network(x), expected, rtol=0, atol=0)
