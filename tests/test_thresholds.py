"""Thresholds of quantizers that read multiples of a grid: where they lie, and that runtimes have them there too."""

import pytest
import torch
from torch import Tensor, nn

from odm.deploy.certificate import reference
from odm.deploy.integer import IntegerLayer, integer_layers
from odm.deploy.onnx_file import codes_of, tapped, to_onnx
from odm.deploy.runtimes import runtimes
from odm.deploy.thresholds import half_way

pytest.importorskip("onnx", reason="needs odm-sr[deploy]")
pytest.importorskip("onnxscript", reason="needs odm-sr[deploy]")

GRID = 2.0**-12
# As trained; origins in steps: none, such as OpenVINO would leave out or make one for all channels, and others.
STEPS = torch.tensor([3.07421875, 0.80029296875, 10.6123046875], dtype=torch.float64)
ORIGINS = {
    "zero": torch.zeros(3),
    "small": torch.tensor([-0.00012, -0.00011, -0.00013]),
    "nearly one": torch.tensor([0.30001, 0.30002, 0.30000]),
    "any": torch.tensor([-0.41, 0.03, 0.27]),
    "one layer": torch.tensor(-0.0012),
    "one layer, far": torch.tensor(0.31),
}


@pytest.mark.parametrize("zero_point", [0, 1])
@pytest.mark.parametrize("shift", ORIGINS.values(), ids=ORIGINS)
def test_thresholds_are_half_way(shift: Tensor, zero_point: int) -> None:
    wanted = STEPS if shift.ndim else STEPS[0]
    step, origin = half_way(wanted, shift * wanted, GRID, zero_point)
    places = (torch.arange(-3, 4).view(-1, *[1] * step.ndim) + 0.5) * step + origin
    assert torch.equal((places / GRID).frac().abs(), torch.full_like(places, 0.5))
    assert (step - wanted).abs().max() <= GRID
    assert (origin / wanted - shift).abs().max() <= 0.003


class Reading(nn.Module):
    """Pixels, as multiples of the grid around a threshold of each channel, behind a quantizer."""

    multiple = 1

    def __init__(self, step: Tensor, origin: Tensor, zero_point: int, level: int) -> None:
        super().__init__()
        self.writer, self.reader = (
            IntegerLayer(nn.Conv2d(3, 3, 1), per_channel=each) for each in (False, step.ndim > 0)
        )
        identity = torch.eye(3).to(torch.int8).view(3, 3, 1, 1)
        for layer in (self.writer, self.reader):
            layer.weight.copy_(identity)
            layer.grid = GRID
        threshold = (level + 0.5) * step + origin
        self.writer.unit.fill_(GRID)
        self.writer.bias.copy_((threshold / GRID).floor() - 127)
        self.reader.step.copy_(step)
        self.reader.origin.copy_(origin)
        self.reader.least, self.reader.most = -zero_point, 3 - zero_point

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(self.writer(x).relu())  # type: ignore[no-any-return]


@pytest.mark.skipif(not runtimes(), reason="neither onnxruntime nor openvino is installed")
@pytest.mark.parametrize("zero_point", [0, 1])
@pytest.mark.parametrize("shift", ORIGINS.values(), ids=ORIGINS)
def test_runtimes_have_them_there(shift: Tensor, zero_point: int) -> None:
    image = torch.arange(256.0).view(1, 1, 16, 16).expand(1, 3, -1, -1).contiguous()
    wanted = STEPS if shift.ndim else STEPS[0]
    step, origin = half_way(wanted, shift * wanted, GRID, zero_point)
    for level in range(3 - zero_point):
        form = Reading(step, origin, zero_point, level).eval()
        ours, _ = reference(form, image)  # type: ignore[arg-type]
        assert ours["reader"][0, :, 7, 15].tolist() == [level + zero_point] * 3
        assert ours["reader"][0, :, 8, 0].tolist() == [level + 1 + zero_point] * 3
        model = tapped(to_onnx(form, {}), list(integer_layers(form)))  # type: ignore[arg-type]
        for runtime in runtimes():
            found = runtime.open(model).run(image.numpy())[codes_of("reader")]
            assert (found == ours["reader"]).all(), f"{runtime.name}, level {level}"
