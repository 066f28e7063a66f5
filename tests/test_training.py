"""The loop with real gradients on a photograph: the mechanism of the paper, and runs that are killed and go on."""

import pytest
import torch
from trial import NETWORK, ODM, PLAIN, QAT, equal, killed_and_resumed, quantized, state, trained

from odm.methods.build import method_class
from odm.methods.odm.settings import Offsets
from odm.networks.build import build
from odm.quantization.layer import quantized_layers
from odm.settings.training import Cooperation, Training
from odm.training.loop import fit, rate_at


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
    assert float_state.keys() <= kept.keys()
    assert all(torch.equal(kept[key], value) for key, value in float_state.items())


@pytest.mark.parametrize("settings", [PLAIN, ODM], ids=["plain", "odm"])
def test_killed_after_any_row_equals_undisturbed(settings, float_state, layers, batches, tmp_path):
    killed_and_resumed(lambda: quantized(settings, float_state, layers, batches), batches, tmp_path)


def test_a_checkpoint_of_other_settings_is_not_used(float_state, layers, batches, tmp_path):
    trained(quantized(PLAIN, float_state, layers, batches), batches, tmp_path / "last")
    other = quantized(PLAIN, float_state, layers, batches)
    history = fit(other.network, batches, other.parameter_groups(QAT), QAT, other, tmp_path / "last", "another id")
    assert len(history) == 3


@pytest.mark.parametrize("settings", [PLAIN, ODM], ids=["plain", "odm"])
def test_a_stored_state_gives_the_same_pixels(settings, float_state, layers, batches, tmp_path):
    method = quantized(settings, float_state, layers, batches)
    trained(method, batches, tmp_path / "last")
    again = method_class(settings.kind)(build(NETWORK), settings, method.run)
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
    spread = {}
    for name, changes in {
        "none": {"regularizer": "none"},
        "sign": {"strength": 0.03},
        "always": {"strength": 0.03, "cooperation": Cooperation(rule="always")},
    }.items():
        settings = ODM.model_copy(update=changes | {"offsets": Offsets(kind="none")})
        method = quantized(settings, float_state, layers, batches)
        history = trained(method, batches, tmp_path / name, steps=60)
        spread[name] = history[-1]["deviation"]
        if name == "none":
            assert "agreement" not in history[-1]
        else:
            assert all(0.1 < row["agreement"] < 0.9 for row in history)
            assert all(-1 <= row["cosine"] <= 1 for row in history)
            assert set(history[-1]) >= {f"agreement.{layer}" for layer in list(method.layers)[:-1]}
    assert spread["always"] < spread["sign"] < spread["none"]


def test_the_variance_regularizer_is_of_a_population(float_state, layers, batches):
    """Eq. 2 by numpy, whose deviation divides by n: as every other deviation here."""
    settings = ODM.model_copy(update={"offsets": Offsets(kind="none")})
    method = quantized(settings, float_state, layers, batches)
    method.network(batches(0)[0][:1, :, :3, :3])  # so few values that n - 1 would show
    found = method.regularizer().item()
    stated = sum(layer.input.detach().double().numpy().std() for layer in method.layers.values())
    assert found == pytest.approx(settings.strength * stated, rel=1e-5)


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
    network.load_state_dict(float_state)
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


@pytest.mark.parametrize("every", [2, 5])
def test_a_gradient_of_the_regularizer_lasts_some_steps(every, float_state, layers, batches, tmp_path):
    """It is taken every so many steps and after each checkpoint, so that a killed training comes to the same bytes."""
    settings = ODM.model_copy(update={"cooperation": Cooperation(every=every)})
    asked = []

    def make():
        method = quantized(settings, float_state, layers, batches)
        regularizer = method.regularizer
        method.regularizer = lambda: asked.append(1) or regularizer()
        return method

    trained(make(), batches, tmp_path / "counted")
    steps = {step for step in range(QAT.steps) if step % every == 0 or step % QAT.log_every == 0}
    assert len(asked) == len(steps) < QAT.steps
    killed_and_resumed(make, batches, tmp_path)
