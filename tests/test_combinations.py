"""Every backbone x method x {4, 2} bits: thirty steps on a photograph, stored, and scored."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from skimage import data
from test_networks import SMALL, at
from torch import Tensor, nn

from odm.methods.build import method_class
from odm.methods.daq.settings import Daq
from odm.methods.ddtb.settings import Ddtb
from odm.methods.method import Method
from odm.methods.odm.settings import Odm, Offsets
from odm.methods.odm_eccv.settings import OdmEccv
from odm.methods.pams.settings import Pams
from odm.methods.per_channel.settings import PerChannel
from odm.methods.plain.settings import Plain
from odm.methods.settings import MethodSettings
from odm.networks import weights
from odm.networks.backbone import Backbone
from odm.quantization.statistics import measured
from odm.settings.training import Qat, Run, Training
from odm.training.loop import fit
from odm.training.objective import Objective
from odm.training.patches import Patches

QAT = Qat(steps=30, batch=2, patch=12, rate=0.001, schedule="cosine", log_every=10, calibration_batches=4)
FLOAT = Training(steps=150, batch=2, patch=12, rate=0.003, schedule="cosine", log_every=150)
# Phases, rates and strengths to the length of these runs.
EACH: dict[str, MethodSettings] = {
    "plain": Plain(kind="plain"),
    "odm": Odm(kind="odm", strength=0.01, offsets=Offsets(share=0.5, undone=True)),
    "odm_eccv": OdmEccv(kind="odm_eccv"),
    "per_channel": PerChannel(kind="per_channel"),
    "pams": Pams(kind="pams", calibration_steps=6, range_rate=10),
    "daq": Daq(kind="daq"),
    "ddtb": Ddtb(kind="ddtb", gate_steps=6, range_rate=10, initial="percentile", dynamic_share=0.5),
}
ADAPTS = {"daq", "ddtb"}  # to the image, at test time


@pytest.fixture(scope="module")
def photographs() -> Tensor:
    """Two parts of images that are not trained on, (2, 3, 48, 48)."""
    parts = [torch.tensor(image[100:148, 200:248].copy()) for image in (data.astronaut(), data.rocket())]
    return torch.stack(parts).permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last)


@pytest.fixture(scope="module")
def float_network(batches: Patches, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Backbone]:
    """By backbone, a float network that has learned a little."""
    states: dict[str, dict[str, Tensor]] = {}

    def network(name: str) -> Backbone:
        made = at(SMALL[name]).to(memory_format=torch.channels_last)
        if name not in states:
            groups = [{"params": list(made.parameters()), "lr": FLOAT.rate}]
            fit(made, batches, groups, FLOAT, Objective(), tmp_path_factory.mktemp(name) / "last", "float")
            states[name] = {key: value.clone() for key, value in made.state_dict().items()}
        made.load_state_dict(states[name])
        return made.eval()

    return network


def quantized(name: str, settings: MethodSettings, bits: int, network: Backbone, batches: Patches) -> Method:
    """As `odm mismatch` and the beginning of `odm train` do it."""
    coverage = settings.coverage if settings.coverage in SMALL[name].coverages else "blocks"
    settings = settings.model_copy(update={"coverage": coverage})
    lows = [batches(1000 + step)[0] for step in range(4)]
    layers = measured(network, network.placement("body").layers, lows, percentile=99)
    run = Run(network="n", method="m", weight_bits=bits, activation_bits=bits)
    method = method_class(settings.kind)(network, settings, run)  # type: ignore[arg-type]
    method.prepare(layers, [batches(2000 + step)[0] for step in range(QAT.calibration_batches)])
    method.watch()
    return method


@torch.inference_mode()
def pixels(network: nn.Module, images: Tensor) -> Tensor:
    return network.eval()(images.contiguous(memory_format=torch.channels_last)).round().clamp(0, 255)


@torch.inference_mode()
def loss_of(network: nn.Module, batches: Patches) -> float:
    """Mean L1 over the batches that are trained on."""
    network.eval()
    pairs = [batches(step) for step in range(QAT.steps)]
    return sum((network(low) - high).abs().mean().item() for low, high in pairs) / len(pairs)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 2])
@pytest.mark.parametrize("kind", EACH)
@pytest.mark.parametrize("name", SMALL)
def test_trains_and_is_stored_and_scored(
    name: str,
    kind: str,
    bits: int,
    float_network: Callable[[str], Backbone],
    batches: Patches,
    photographs: Tensor,
    tmp_path: Path,
) -> None:
    method = quantized(name, EACH[kind], bits, float_network(name), batches)
    before = loss_of(method.network, batches)
    history = fit(
        method.network, batches, method.parameter_groups(QAT), QAT, method, tmp_path / "checkpoint", "identity"
    )
    assert all(torch.tensor(list(row.values())).isfinite().all() for row in history)
    assert all(value.isfinite().all() for value in method.network.state_dict().values())
    assert loss_of(method.network, batches) < before

    weights.save(tmp_path / "weights", method.network, "digest")
    again = method_class(kind)(at(SMALL[name]), method.settings, method.run)
    again.restore(weights.load(tmp_path / "weights", "digest"))
    stored = again.network.to(memory_format=torch.channels_last)
    expected = pixels(method.network, photographs)
    assert all(torch.equal(pixels(stored, photographs), expected) for _ in range(2))

    # Convolutions sum in another order for another size; in double precision that tips no rounding to another level.
    stored, photographs = stored.double(), photographs.double()
    together = pixels(stored, photographs)
    assert torch.equal(torch.cat([pixels(stored, each[None]) for each in photographs]), together)
    if name == "swinir":  # sees too far for a crop to say anything
        return
    crop = pixels(stored, photographs[..., :32, :32])[..., :32, :32]  # far from where the crop ends
    assert torch.equal(crop, together[..., :32, :32]) == (kind not in ADAPTS)


@pytest.mark.slow
def test_compiled_is_the_same_training(
    float_network: Callable[[str], Backbone], batches: Patches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of `odm`, whose two gradients go through one graph."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))  # nothing that another CPU compiled
    histories = []
    for compiled in (False, True):
        method = quantized("edsr", EACH["odm"], 4, float_network("edsr"), batches)
        training = QAT.model_copy(update={"steps": 12, "log_every": 3, "compile": compiled})
        groups = method.parameter_groups(training)
        saved = tmp_path / str(compiled)
        histories.append(fit(method.network, batches, groups, training, method, saved, "identity"))
    for eager, other in zip(*histories, strict=True):
        assert eager.keys() == other.keys()
        assert other == pytest.approx(eager, rel=1e-3, abs=1e-5)
