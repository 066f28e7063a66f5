"""The loop with real gradients on a photograph: the mechanism of the paper, and runs that are killed and go on."""

import pytest
import torch
from skimage import data

from odm.images.prepared import Prepared, write
from odm.methods.build import METHODS
from odm.networks.build import build
from odm.quantization.layer import quantized_layers
from odm.quantization.statistics import measured
from odm.settings import Cooperation, Edsr, Odm, Offsets, Plain, Qat, Run, Training
from odm.training.loop import fit, rate_at
from odm.training.objective import Objective
from odm.training.patches import Patches

NETWORK = Edsr(backbone="edsr", channels=8, blocks=2, scale=2)
QAT = Qat(steps=12, batch=2, patch=12, rate=0.001, schedule="cosine", log_every=4, calibration_batches=4)
PLAIN = Plain(kind="plain")
ODM = Odm(kind="odm", strength=0.01, offsets=Offsets(share=0.5))


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "train.safetensors"
    write(path, {"photographs": [("chelsea", data.chelsea())]}, [2])
    return Patches(Prepared(path), 2, QAT.batch, QAT.patch, seed=3)


@pytest.fixture(scope="module")
def float_state(batches, tmp_path_factory):
    """A float network that has learned a little."""
    network = build(NETWORK).to(memory_format=torch.channels_last)
    training = Training(steps=150, batch=2, patch=12, rate=0.003, schedule="cosine", log_every=150)
    groups = [{"params": list(network.parameters()), "lr": training.rate}]
    history = fit(network, batches, groups, training, Objective(), tmp_path_factory.mktemp("c") / "last", "float")
    return network.state_dict(), history


@pytest.fixture(scope="module")
def layers(batches, float_state):
    """What the mismatch step would write."""
    network = build(NETWORK)
    network.load_state_dict(float_state[0])
    lows = [batches(1000 + step)[0] for step in range(4)]
    return measured(network, network.placement("body").layers, lows, percentile=99)


def quantized(method_settings, float_state, layers, batches, bits=2):
    network = build(NETWORK).to(memory_format=torch.channels_last)
    network.load_state_dict(float_state[0])
    run = Run(network="n", method="m", weight_bits=bits, activation_bits=bits)
    method = METHODS[method_settings.kind](network, method_settings, run)
    method.prepare(layers, [batches(2000 + step)[0] for step in range(QAT.calibration_batches)])
    method.watch()
    return method


def trained(method, batches, saved, training=QAT):
    return fit(method.network, batches, method.parameter_groups(training), training, method, saved, "id")


def state(method):
    return {key: value.clone() for key, value in method.network.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("settings", [PLAIN, ODM], ids=["plain", "odm"])
def test_repr_lists_each_layer_and_only_named_ones_are_quantized(settings, float_state, layers, batches):
    method = quantized(settings, float_state, layers, batches, bits=3)
    names = method.network.placement("blocks").layers
    assert list(quantized_layers(method.network)) == names
    assert repr(method.network).count("W3A3") == len(names) == 4
    float_names = {name for name, module in method.network.named_modules() if type(module) is torch.nn.Conv2d}
    assert {name for name in float_names if not name.endswith(".layer")} == {"head", "last", "upsampler.0", "tail"}


def test_quantizing_keeps_every_float_weight(float_state, layers, batches):
    method = quantized(ODM, float_state, layers, batches)
    kept = {key.replace(".layer.", "."): value for key, value in state(method).items()}
    assert float_state[0].keys() <= kept.keys()
    assert all(torch.equal(kept[key], value) for key, value in float_state[0].items())


@pytest.mark.parametrize("settings", [PLAIN, ODM], ids=["plain", "odm"])
def test_killed_after_any_row_equals_undisturbed(settings, float_state, layers, batches, tmp_path):
    whole = quantized(settings, float_state, layers, batches)
    history = trained(whole, batches, tmp_path / "whole")

    class Killed(Exception):  # noqa: N818
        pass

    def until(last):
        def batch(step):
            if step == last:
                raise Killed
            return batches(step)

        return batch

    for last in (2, 5, 11):  # before the first checkpoint, between two, before the last step
        with pytest.raises(Killed):
            trained(quantized(settings, float_state, layers, batches), until(last), tmp_path / "cut")
    resumed = quantized(settings, float_state, layers, batches)
    assert trained(resumed, batches, tmp_path / "cut") == history
    assert equal(state(resumed), state(whole))


def test_a_checkpoint_of_other_settings_is_not_used(float_state, layers, batches, tmp_path):
    trained(quantized(PLAIN, float_state, layers, batches), batches, tmp_path / "last")
    other = quantized(PLAIN, float_state, layers, batches)
    history = fit(other.network, batches, other.parameter_groups(QAT), QAT, other, tmp_path / "last", "another id")
    assert len(history) == 3


@pytest.mark.parametrize("settings", [PLAIN, ODM], ids=["plain", "odm"])
def test_a_stored_state_gives_the_same_pixels(settings, float_state, layers, batches, tmp_path):
    method = quantized(settings, float_state, layers, batches)
    trained(method, batches, tmp_path / "last")
    again = METHODS[settings.kind](build(NETWORK), settings, method.run)
    again.restore(state(method))
    low = batches(0)[0]
    torch.testing.assert_close(again.network(low), method.network(low))


def test_weights_ranges_and_offsets_all_move(float_state, layers, batches, tmp_path):
    method = quantized(ODM, float_state, layers, batches)
    before = state(method)
    trained(method, batches, tmp_path / "last")
    still = {key for key, value in state(method).items() if torch.equal(value, before[key])}
    assert still == {f"{name}.activation.least" for name in method.layers}


def test_the_regularizer_moves_no_range_and_no_offset(float_state, layers, batches):
    method = quantized(ODM, float_state, layers, batches)
    low, high = batches(0)

    def corrections():
        method.network.zero_grad()
        method.backward((method.network(low) - high).abs().mean())
        names = ("activation", "offset")
        return {k: p.grad.clone() for k, p in method.network.named_parameters() if any(f".{n}." in k for n in names)}

    with_regularizer = corrections()
    method.odm = method.odm.model_copy(update={"regularizer": "none"})
    assert equal(corrections(), with_regularizer)


def test_mechanism_of_variance_regularization(float_state, layers, batches, tmp_path):
    """Regularized, activations spread less than without; cooperation lets a part of the gradient through."""
    training = QAT.model_copy(update={"steps": 60})
    spread = {}
    for name, changes in {
        "none": {"regularizer": "none"},
        "sign": {"strength": 0.03},
        "always": {"strength": 0.03, "cooperation": Cooperation(rule="always")},
    }.items():
        settings = ODM.model_copy(update=changes | {"offsets": Offsets(kind="none")})
        method = quantized(settings, float_state, layers, batches)
        history = trained(method, batches, tmp_path / name, training)
        spread[name] = history[-1]["deviation"]
        if name == "none":
            assert "agreement" not in history[-1]
        else:
            assert all(0.1 < row["agreement"] < 0.9 for row in history)
            assert all(-1 <= row["cosine"] <= 1 for row in history)
            assert set(history[-1]) >= {f"agreement.{layer}" for layer in list(method.layers)[:-1]}
    assert spread["always"] < spread["sign"] < spread["none"]


def test_mechanism_of_offsets(float_state, layers, batches):
    """Measured offsets make the mismatch that the quantizers see smaller, on the layers that have one."""
    seen = {}
    for kind in ("none", "shift", "scale"):
        offsets = Offsets(kind=kind, share=1.0, bits=8, undone=True)
        method = quantized(ODM.model_copy(update={"offsets": offsets}), float_state, layers, batches, bits=8)
        method.network(batches(3000)[0])
        seen[kind] = method.measure()
    assert seen["shift"]["mean_spread"] < 0.7 * seen["none"]["mean_spread"]
    assert seen["scale"]["deviation_spread"] < 0.7 * seen["none"]["deviation_spread"]


def test_offsets_undone_leave_the_function_nearly_as_it_was(float_state, layers, batches):
    low = batches(0)[0]
    network = build(NETWORK)
    network.load_state_dict(float_state[0])
    offsets = Offsets(share=1.0, bits=8, undone=True)
    method = quantized(ODM.model_copy(update={"offsets": offsets}), float_state, layers, batches, bits=8)
    assert (method.network(low) - network(low)).abs().mean() < 1


def test_schedules():
    step = Training(steps=100, batch=1, patch=8, rate=0.1, schedule="step", halve_every=40)
    assert [rate_at(at, step) for at in (0, 39, 40, 80)] == [1, 1, 0.5, 0.25]
    cosine = step.model_copy(update={"schedule": "cosine"})
    assert rate_at(0, cosine) == 1
    assert rate_at(50, cosine) == pytest.approx(0.5)
    assert rate_at(99, cosine) < 0.001
