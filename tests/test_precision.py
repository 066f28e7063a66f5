"""Training that multiplies in bfloat16: what stays in float32, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trial import ODM, PLAIN, QAT, equal, quantized, state, trained

from odm.errors import OdmError
from odm.methods.ddtb.settings import Ddtb
from odm.methods.pams.settings import Pams
from odm.methods.settings import MethodSettings
from odm.networks.device import device_of
from odm.quantization.part import ActivationQuantizer
from odm.quantization.quantizer import quantize
from odm.settings.reading import load
from odm.settings.training import Qat
from odm.training.patches import Patches

BFLOAT16 = {"precision": "bfloat16"}


@pytest.mark.parametrize(
    "settings",
    [
        PLAIN,
        ODM,
        Pams(kind="pams", coverage="shortcuts", calibration_steps=2),
        Ddtb(kind="ddtb", gate_steps=2, dynamic_share=0.5),
    ],
    ids=lambda settings: settings.kind,
)
def test_quantizers_weights_and_loss_stay_in_float32(
    settings: MethodSettings,
    float_state: dict[str, Tensor],
    layers: dict[str, dict[str, Any]],
    batches: Patches,
    tmp_path: Path,
) -> None:
    seen: dict[str, set[torch.dtype]] = {"quantizers": set(), "layers": set(), "inputs": set(), "losses": set()}

    def of(bfloat16: bool) -> tuple[dict[str, Tensor], float]:
        method = quantized(settings, float_state, layers, batches)
        for module in method.network.modules():
            if isinstance(module, ActivationQuantizer):
                module.register_forward_pre_hook(lambda _, given: seen["quantizers"].add(given[0].dtype))
        if bfloat16:
            for layer in method.layers.values():
                layer.register_forward_hook(lambda each, _, out: seen["layers"].add(out.dtype))
                layer.register_forward_hook(lambda each, _, out: seen["inputs"].add(each.input.dtype))
            backward = method.backward
            method.backward = lambda loss: (seen["losses"].add(loss.dtype), backward(loss))[1]
        rows = trained(method, batches, tmp_path / str(bfloat16), **(BFLOAT16 if bfloat16 else {}))
        return state(method), rows[-1]["loss"]

    (plain, loss), (half, loss_of_half) = of(bfloat16=False), of(bfloat16=True)
    assert seen["layers"] == {torch.bfloat16}, "nothing was multiplied in bfloat16"
    assert seen["quantizers"] == seen["inputs"] == seen["losses"] == {torch.float32}
    assert {key: value.dtype for key, value in half.items()} == {key: value.dtype for key, value in plain.items()}
    assert not equal(plain, half)
    assert loss_of_half == pytest.approx(loss, rel=0.1), "another training, not the same one with other roundings"


def test_levels_are_those_of_float32() -> None:
    """In bfloat16 numbers around 200 lie 1 apart: of 256 levels over a unit there hardly one would be left."""
    quantizer = quantize_at_8_bits()
    x = torch.linspace(200, 201, 1000)
    with torch.autocast("cpu", torch.bfloat16):
        assert quantizer(x).unique().numel() == 256
        assert quantizer(x.bfloat16()).dtype == torch.float32


def quantize_at_8_bits() -> ActivationQuantizer:
    class Fixed(ActivationQuantizer):
        def forward(self, x: Tensor) -> Tensor:
            return quantize(x, torch.tensor(200.0), torch.tensor(201.0), self.bits)

    return Fixed(8)


def test_the_setting_is_one_of_three() -> None:
    assert Qat(**QAT.model_dump() | BFLOAT16).precision == "bfloat16"


@pytest.mark.parametrize(
    ("has", "vectors", "said"),
    [
        (False, "native", "precision: bfloat16 would be emulated on this cpu; say `precision: float32`"),
        (True, "avx2", "precision: bfloat16 wants vectors of AVX-512 on a CPU; say `vectors: native`, or float32"),
    ],
)
def test_emulation_is_refused(has: bool, vectors: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("odm.networks.device.set_vectors", lambda width: None)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: has)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    settings = load().model_copy(update={"device": "cpu", "vectors": vectors})
    with pytest.raises(OdmError) as refused:
        device_of(settings, "bfloat16")
    assert str(refused.value) == said
