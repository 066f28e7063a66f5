"""What the ranges of weights cost, told before any training."""

import json
import re
from pathlib import Path

import pytest
import torch
from test_errors import NETWORK, finished, project  # noqa: F401
from trial import NETWORK as SETTINGS

from odm.networks.build import build
from odm.quantization.convert import convert
from odm.quantization.quantizer import WeightQuantizer
from odm.quantization.weight_ranges import psnr_by_range
from odm.settings.reading import load
from odm.steps import mismatch


def test_an_outlier_makes_max_the_dearest(float_state, batches) -> None:
    """And the numbers are those of the network as it would be quantized, its weights alone."""
    network = build(SETTINGS).to(memory_format=torch.channels_last)
    network.load_state_dict(float_state)
    names = [name for name in network.placement("blocks").layers if name.endswith("conv2")]
    with torch.no_grad():
        for name in names:  # a weight far out that does nothing: what it is multiplied with is 0
            first = network.get_submodule(name.replace("conv2", "conv1"))
            first.weight[0], first.bias[0] = 0, 0
            network.get_submodule(name).weight[0, 0, 0, 0] = 4.0
    before = {key: value.clone() for key, value in network.state_dict().items()}
    pairs = [batches(step) for step in range(2)]
    found = psnr_by_range(network, names, pairs)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert network.training
    assert found["max", 2] < found["percentile", 2] < found["float", 32]
    assert found["max", 4] < found["mse", 4] <= found["float", 32]

    convert(network, dict.fromkeys(names), lambda: WeightQuantizer(4, "mse"), {})
    with torch.no_grad():
        errors = [(network.eval()(low).clamp(0, 255) - high).square().mean() for low, high in pairs]
    assert found["mse", 4] == pytest.approx(10 * torch.log10(255**2 / torch.stack(errors).mean()).item(), abs=1e-4)


def test_mismatch_tells_them_and_writes_what_it_wrote(project: Path, capsys) -> None:  # noqa: F811
    """A training depends on the file's bytes."""
    before = (NETWORK / "mismatch.json").read_bytes()
    mismatch.run(load(), "net")
    said = capsys.readouterr().out
    assert "PSNR on training patches with the weights of `blocks` quantized alone, untrained (float " in said
    for rule in ("max", "percentile", "mse"):
        assert re.search(rf"^  weight_range {rule}: [\d.]+ dB at 4 bits, [\d.]+ dB at 2 bits$", said, re.MULTILINE)
    assert (NETWORK / "mismatch.json").read_bytes() == before
    assert json.loads(before).keys() == {"network", "settings", "layers", "sha256"}
