"""SwinIR in whole numbers: trained, exported and held to the bit in each runtime, and what is another in a file found.

Trained and exported once for each of TRAINED: the exporter takes its time.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from test_certificate import assert_same_bits, changed, copied
from test_deploy import RUN, lows, quantized
from trial import PLAIN, trained

from odm.deploy import packed
from odm.deploy.certificate import certify, faults
from odm.deploy.exact import integer_form
from odm.deploy.fast import fast_form
from odm.deploy.fixed import FixedLayer
from odm.deploy.flow import Flow
from odm.deploy.integer import integer_layers
from odm.deploy.nonlinear import FUNCTIONS, Function
from odm.deploy.onnx_file import to_onnx
from odm.deploy.plan import plan, probe
from odm.deploy.runtimes import runtimes
from odm.deploy.sets import Sets
from odm.errors import OdmError
from odm.methods.build import method_class
from odm.methods.plain.settings import Plain
from odm.model import Model
from odm.networks.backbone import Backbone
from odm.networks.build import build
from odm.networks.swinir.settings import Swinir
from odm.settings.images import Images
from odm.settings.training import Training
from odm.training.loop import fit
from odm.training.objective import Objective

onnx = pytest.importorskip("onnx", reason="needs odm-sr[deploy]")
pytest.importorskip("onnxscript", reason="needs odm-sr[deploy]")
pytestmark = pytest.mark.slow

needs_runtimes = pytest.mark.skipif(not runtimes(), reason="neither onnxruntime nor openvino is installed")
PLAIN_MSE = Plain(kind="plain", weight_range="mse")
BODY = Plain(kind="plain", weight_range="mse", coverage="body", pads="quantized_zero")
"""Convolutions too, padded as whole numbers are."""
SETTINGS = Swinir(backbone="swinir", channels=12, blocks=1, layers=2, heads=2, window=4, scale=2)
LAYER = "blocks.0.layers.1"
TRAINED = {"w4a4": (4, PLAIN_MSE), "w2a2_body": (2, BODY)}


@pytest.fixture(scope="module", params=TRAINED)
def network(request: pytest.FixtureRequest, batches: Any, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """Trained in float, then at 4 or 2 bits, on one photograph."""
    bits, settings = TRAINED[request.param]
    folder = tmp_path_factory.mktemp("swinir")
    made = build(SETTINGS)
    training = Training(steps=80, batch=2, patch=12, rate=0.003, schedule="cosine", log_every=80)
    groups = [{"params": list(made.parameters()), "lr": training.rate}]
    fit(made, batches, groups, training, Objective(), folder / "float", "float")
    run = RUN.model_copy(update={"weight_bits": bits, "activation_bits": bits})
    method = method_class("plain")(made, settings, run)
    method.prepare({}, [batches(2000 + step)[0] for step in range(4)])
    method.watch()
    trained(method, batches, folder / "quantized", steps=60)
    return method.network.eval()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    """Parts of photographs; no side of theirs is a multiple of the window once it is halved."""
    folder = tmp_path_factory.mktemp("photographs")
    for name, (top, left, height, width) in {"cat": (60, 120, 90, 126), "rocket": (0, 300, 126, 60)}.items():
        pixels = data.chelsea() if name == "cat" else data.rocket()
        Image.fromarray(pixels[top : top + height, left : left + width]).save(folder / f"{name}.png")
    return Sets(["some"], Images(train=["some"], test=["some"], scales=[2], folders={"some": str(folder)}))


@pytest.fixture(scope="module")
def form(network: Backbone, batches: Any) -> Backbone:
    noise = (torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(2)) > 0.5) * 255.0
    return integer_form(network, [*(batches(3000 + step)[0][:1] for step in range(4)), *lows(48), noise])


@pytest.fixture(scope="module")
def model(form: Backbone) -> Any:
    return to_onnx(form, {"odm.name": "it"})


def test_no_function_stays_float(form: Backbone) -> None:
    assert sum(isinstance(each, Function) for each in form.modules()) == 2 + 2 * 6
    assert sum(isinstance(each, FixedLayer) for each in form.modules()) + len(integer_layers(form)) == 4 + 8
    assert not any(isinstance(each, FUNCTIONS) for each in form.modules())
    bias = form.get_parameter(f"{LAYER}.bias") * 2**9
    assert torch.equal(bias, bias.round()) and bias.any()


@needs_runtimes
@pytest.mark.parametrize(("height", "width"), [(4, 4), (4, 20), (24, 16)])
def test_runtimes_compute_the_same_bits(height: int, width: int, form: Backbone, model: Any) -> None:
    """From one window on."""
    image = torch.randint(0, 256, (1, 3, height, width), generator=torch.Generator().manual_seed(8)).float()
    assert_same_bits(form, model, image)


@needs_runtimes
def test_it_is_certified_and_keeps_its_score(network: Backbone, form: Backbone, model: Any, images: Sets) -> None:
    found = certify(model, form, network, runtimes(), images)
    assert faults(found) == []
    assert found["output"]["bytes"] == 3 * (90 * 126 + 126 * 60)
    assert found["layers"].keys() == integer_layers(form).keys()
    for said in found["runtimes"].values():  # linear layers are told by what they ran as, too
        assert all(said["operators"][name]["integer"] for name in found["layers"] if ".layers." in name)
    psnr = {name: said["some"] for name, said in found["psnr"].items()}
    # Two small crops: at 2 bits single codes that flip at a threshold show more than over whole photographs.
    most = {4: 0.01, 2: 0.02}[next(iter(integer_layers(form).values())).bits[0]]
    assert abs(psnr["integer form"] - psnr["trained"]) < most
    assert len({value for name, value in psnr.items() if name != "trained"}) == 1


def entry(place: int, by: float) -> Callable[[Any], Any]:
    """Another value in one place."""

    def change(values: Any) -> Any:
        values.reshape(-1)[place] += by
        return values

    return change


SABOTAGE: dict[str, tuple[str, str, int, Callable[[Any], Any]]] = {
    "gelu: table": ("gelu", "GatherND", 0, entry(400, 0.25)),
    "softmax: table": ("softmax", "GatherND", 0, entry(3, -4000)),
    "norm1: weight": ("norm1", "Mul", 1, lambda values: values * np.float32(1.25)),
    "norm2: bias": ("norm2", "Add", 1, entry(5, 0.25)),
    "weighting: bounds": ("weighting", "Clip", 2, lambda values: values / 64),
}


@needs_runtimes
@pytest.mark.parametrize("part", SABOTAGE)
def test_sabotage_is_found_and_named(part: str, form: Backbone, model: Any, images: Sets) -> None:
    name, operator, place, change = SABOTAGE[part]
    made = copied(model)
    expected = dict(form.get_submodule(f"{LAYER}.{name}").constants())[part.split(": ")[1]]
    known = {each.name: onnx.numpy_helper.to_array(each) for each in made.graph.initializer}
    known |= {
        each.output[0]: onnx.numpy_helper.to_array(each.attribute[0].t)
        for each in made.graph.node
        if each.op_type == "Constant"
    }
    node = next(
        each
        for each in made.graph.node
        if each.name.startswith(f"{LAYER}.{name}/{operator}_")
        and np.array_equal(known.get(each.input[place]), expected)
    )
    changed(made, node, place, change)
    wrong = faults(certify(made, form, None, runtimes(), images))
    assert wrong[0] == f"{LAYER}.{part} of the file is not the integer form's"
    for runtime in runtimes():
        assert any(each.startswith(f"{runtime.name}: ") and f"{LAYER}." in each for each in wrong)


def test_packed_is_the_same_form(form: Backbone, tmp_path: Path) -> None:
    about = Model(
        name="it", network=SETTINGS, method=PLAIN, run=RUN, trained_on=["mine"], scores={}, settings="0", licence="CC0"
    )
    path = tmp_path / "it.odmi"
    packed.write(path, about, form)
    said, again = packed.read(path)
    assert said == about and str(again) == str(form)
    state, buffers = again.state_dict(), dict(again.named_buffers())
    assert state.keys() == form.state_dict().keys()
    for key, value in [*form.state_dict().items(), *form.named_buffers()]:
        assert torch.equal(state.get(key, buffers.get(key)), value), key
    with torch.inference_mode():
        assert torch.equal(form(lows(48)[0]), again(lows(48)[0]))
    packed.write(tmp_path / "again.odmi", said, again)
    assert (tmp_path / "again.odmi").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(("settings", "count", "most"), [(PLAIN_MSE, 16, 0.005), (BODY, 19, 0.15)])
@pytest.mark.parametrize("bits", [2, 4])
def test_the_form_is_near_the_network(settings: Plain, count: int, most: float, bits: int) -> None:
    """Windows of 8; without training, codes of the convolutions flip at thresholds, as in EDSR."""
    network = quantized(build(SETTINGS.model_copy(update={"window": 8, "blocks": 2})), settings, bits, lows(48))
    form = integer_form(network, lows(48))
    layers = integer_layers(form)
    assert len(layers) == count and all(each.grid for each in layers.values())
    with torch.inference_mode():
        for image in lows(48):
            assert (form(image) - network(image)).square().mean().sqrt() < most * network(image).std()


def test_attention_is_told_from_how_values_flow() -> None:
    network = quantized(build(SETTINGS), PLAIN, images=lows(48))
    found = plan(network, Flow(network, probe(network)))
    layers = [f"blocks.0.layers.{each}" for each in range(2)]
    assert found.scores == {f"{each}.similarity" for each in layers}
    assert found.shares == {f"{each}.weighting" for each in layers}
    assert found.constants == {f"{each}.bias" for each in layers}
    assert found.functions[f"{LAYER}.similarity"] == 6 and found.functions[f"{LAYER}.weighting"] == 16
    assert found.in_stream == {"head", "blocks.0.conv"} and found.last == {"tail.0"} and not found.direct


def test_it_has_no_fast_form() -> None:
    network = quantized(build(SETTINGS), PLAIN, images=lows(48))
    with pytest.raises(OdmError, match=r"norm1: LayerNorm takes more than the 8 bits .* export the exact form"):
        fast_form(network, lows(48), lows(48))
