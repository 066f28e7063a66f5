"""Selective distribution offsets: which layers, what they do to the measured mismatch, how they are stored."""

import pytest
import torch

from odm.quantization.offsets import Offset, choose, measured_scale, measured_shift, octaves_in
from odm.quantization.statistics import of_activation


def uneven(channels=6):
    """Activations whose channels differ in mean and in deviation."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, channels, 16, 16, generator=generator)
    return x * torch.linspace(0.5, 4, channels).view(-1, 1, 1) + torch.linspace(-5, 5, channels).view(-1, 1, 1)


def test_two_independent_lists_of_the_most_mismatched():
    layers = {
        name: {"mean_mismatch": mean, "deviation_mismatch": deviation}
        for name, mean, deviation in [("a", 1.0, 9.0), ("b", 8.0, 2.0), ("c", 3.0, 3.0), ("d", 7.0, 8.0)]
    }
    assert choose(layers, 0.5) == {"shift": ["b", "d"], "scale": ["a", "d"]}
    assert choose(layers, 1.0)["shift"] == ["a", "b", "c", "d"]
    assert choose(layers, 0.01) == {"shift": ["b"], "scale": ["a"]}  # never none


def test_measured_offsets_even_the_channels_out():
    x = uneven()
    before = of_activation(x, 99)
    scale = measured_scale(before.channel_deviations, before.deviation)
    shift = measured_shift(before.channel_means, before.mean, None)
    shifted = of_activation(Offset(shift, None, bits=8, undone=False)(x), 99)
    scaled = of_activation(Offset(None, scale, bits=8, undone=False)(x), 99)
    assert shifted.mean_mismatch < 0.02 * before.mean_mismatch
    assert scaled.deviation_mismatch < 0.15 * before.deviation_mismatch  # scales are stored at 8 bits
    # A layer with both: the shift is that of the scaled channels.
    both = Offset(measured_shift(before.channel_means, before.mean, scale), scale, bits=8, undone=False)
    evened = of_activation(both(x), 99)
    assert evened.mean_mismatch < 0.1 * before.mean_mismatch
    assert evened.deviation_mismatch < 0.15 * before.deviation_mismatch


@pytest.mark.parametrize("parts", [("shift",), ("scale",), ("shift", "scale")])
def test_undoing_gives_the_input_back(parts):
    x = uneven()
    values = {"shift": torch.linspace(-2, 2, 6), "scale": torch.linspace(0.5, 2, 6)}
    offset = Offset(*(values[part] if part in parts else None for part in ("shift", "scale")), bits=4, undone=True)
    torch.testing.assert_close(offset.undo(offset(x)), x)


def test_stored_values_lie_on_few_levels_and_learn():
    offset = Offset(torch.randn(64), torch.rand(64) + 0.5, bits=4, undone=False)
    assert offset.stored(offset.shift).unique().numel() <= 16
    offset(torch.randn(2, 64, 3, 3)).square().sum().backward()
    assert (offset.shift.grad != 0).all() and (offset.scale.grad != 0).all()


def test_a_silent_channel_asks_for_no_endless_scale():
    scale = measured_scale(torch.tensor([0.0, 1.0]), 0.7)
    assert torch.isfinite(scale).all() and scale.max() <= 8


def test_scales_stay_within_both_bounds():
    offset = Offset(None, torch.tensor([0.01, 1.0, 8.28, -3.0]), bits=8, undone=True)
    offset.settle()
    assert offset.scale.tolist() == [1 / 8, 1.0, 8.0, 1 / 8]


def test_scales_are_stored_as_powers_of_two_where_asked():
    values = torch.tensor([0.125, 0.7, 0.72, 1.4, 3.0, 8.0])
    offset = Offset(torch.linspace(-1, 1, 6), values, bits=4, undone=True, octaves=6)
    scale, shift = offset.stored_parts()
    assert scale.tolist() == [0.125, 0.5, 1.0, 1.0, 4.0, 8.0]
    assert torch.equal(shift, offset.stored(offset.shift))
    (x := uneven()).requires_grad_()
    offset(x).square().sum().backward()
    assert (offset.scale.grad != 0).all()
    assert offset.storage() == 6 * (4 + 3) / 32
    offset.octaves = 3
    assert offset.stored_parts()[0].tolist() == [0.125, 0.5, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(("weight_bits", "octaves"), [(2, 5), (3, 4), (4, 3), (5, 2), (6, 1), (7, 0), (8, 6), (32, 6)])
def test_weights_that_undo_scales_have_codes_of_eight_bits(weight_bits, octaves):
    assert octaves_in(weight_bits) == octaves
    assert weight_bits > 7 or 2**octaves * (2**weight_bits - 1) <= 127
