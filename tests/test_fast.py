"""The fast form: what is stored where, that nothing in it saturates, what it loses, and what runtimes make of it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trial
from PIL import Image
from test_certificate import ABOUT, changed, node_of, shipped  # noqa: F401  (a fixture)
from test_deploy import FORMS, REFUSED, every_form, float_free, lows, quantized
from trial import NETWORK, PLAIN, trained

from odm.deploy import enlarger, fast, packed, runtimes
from odm.deploy.certificate import reference
from odm.deploy.fast import fast_form
from odm.deploy.fixed import FixedLayer
from odm.deploy.integer import MOST_PAIR, integer_layers, saturating
from odm.deploy.onnx_file import OUTPUT, codes_of, tapped, to_onnx
from odm.deploy.parts import differences
from odm.deploy.stored import Stored
from odm.errors import OdmError
from odm.model import Model
from odm.networks.backbone import Backbone
from odm.networks.edsr.network import Edsr
from odm.quantization.layer import quantized_layers
from odm.steps import certify as certify_step
from odm.steps import export as export_step
from odm.steps import info
from odm.steps import upscale as upscale_step
from odm.upscaling import tiles

pytest.importorskip("onnx", reason="needs odm-sr[deploy]")
pytest.importorskip("onnxscript", reason="needs odm-sr[deploy]")
needs_runtimes = pytest.mark.skipif(not runtimes.runtimes(), reason="neither onnxruntime nor openvino is installed")


def fast_of(kind: str) -> Backbone:
    return fast_form(FORMS[kind](), lows(), lows())


# What is made


@every_form
@torch.inference_mode()
def test_all_layers_but_the_head_are_integers_and_near_the_network(make: Callable[[], Backbone]) -> None:
    network = make()
    form = fast_form(network, lows(), lows())
    fixed = [name for name, each in form.named_modules() if isinstance(each, FixedLayer)]
    assert float_free(form) and fixed == ["head"]
    layers = integer_layers(form)
    quantized_before = quantized_layers(network)
    assert {name for name, each in layers.items() if each.bits == (7, 8)} == layers.keys() - quantized_before.keys()
    for image in lows():
        expected, output = network(image).clamp(0, 255), form(image)
        assert (output == output.round()).all() and output.min() >= 0 and output.max() <= 255
        # Of a float network of no training.
        assert (output - expected).square().mean().sqrt() < 0.15 * expected.std()


def test_a_trained_network_keeps_its_score(batches: Any, float_state: Any, layers: Any, tmp_path: Path) -> None:
    method = trial.quantized(PLAIN, float_state, layers, batches, 4)
    trained(method, batches, tmp_path / "saved")
    network = method.network.eval()
    images = [batches(3000 + step) for step in range(4)]
    form = fast_form(network, [low for low, _ in images], [batches(step)[0] for step in range(8)])
    with torch.inference_mode():
        errors = [
            torch.stack([(each(low).round().clamp(0, 255) - high).square().mean() for low, high in images]).mean()
            for each in (network, form)
        ]
    assert abs(10 * torch.log10(errors[0] / errors[1])) < 0.1


def test_what_is_added_shares_a_scale_and_is_stored_once() -> None:
    form = fast_of("edsr")
    stored = [each for each in form.modules() if isinstance(each, Stored)]
    stream = {(each.least, each.most) for each in stored[:-1]}
    # The head, a second convolution and a sum in each of two blocks, and what comes before the long skip; the last sum
    # is stored by the upsampler's quantizer.
    assert len(stored) == 1 + 3 + 1 + 1 and len(stream) == 1
    upsampler = integer_layers(form)["upsampler.0"]
    assert {(upsampler.least, upsampler.most)} == stream
    assert (stored[-1].least, stored[-1].most) == (0, 255)


@torch.inference_mode()
def test_the_mean_colour_goes_into_the_last_layer() -> None:
    """A network that computes nothing gives it, and it is added once."""
    network = FORMS["edsr"]()
    for name in ("tail.weight", "tail.bias"):
        network.get_parameter(name).zero_()
    form = fast_form(network, lows(), lows())
    colour = form(lows()[0])[0, :, 0, 0]
    assert colour.tolist() == [114, 111, 103]


@torch.inference_mode()
def test_no_value_lies_near_a_threshold() -> None:
    """Of integer layers all multiples of the unit, and of the head all of half a unit of its grid."""
    form = fast_of("edsr")
    for layer in integer_layers(form).values():
        sums = torch.arange(-3000, 3000, dtype=torch.float64)[:, None] * layer.unit.double()
        seen = sums[sums.abs() < 255]
        assert ((seen - seen.floor()) - 0.5).abs().min() > 5e-5
    head = form.get_submodule("head")
    assert isinstance(head, FixedLayer)
    output = head(lows()[0] - form.mean).double() / (head.high_grid / 2)
    assert ((output % 2) == 1).all()


# Processors without VNNI


@every_form
def test_no_two_products_pass_16_bits(make: Callable[[], Backbone]) -> None:
    assert saturating(fast_form(make(), lows(), lows())) == []


CLIPPED = """
import sys
import numpy as np
from odm.deploy.runtimes import OpenVino, _OpenVinoSession
import openvino as ov
core = ov.Core()
compiled = core.compile_model(core.read_model(sys.argv[1]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
(output,) = _OpenVinoSession(compiled).run(np.load(sys.argv[2])).values()
np.save(sys.argv[3], output)
"""


def without_vnni(form: Backbone, image: torch.Tensor, folder: Path) -> Any:
    """What OpenVINO computes where the environment keeps it from newer instructions than AVX2."""
    (folder / "model.onnx").write_bytes(to_onnx(form, {}).SerializeToString())
    np.save(folder / "image.npy", image.numpy())
    files = [str(folder / each) for each in ("model.onnx", "image.npy", "output.npy")]
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", CLIPPED, *files], check=True, env=environment)
    return np.load(folder / "output.npy")


@pytest.mark.skipif(
    "openvino" not in {each.name for each in runtimes.runtimes()} or not {"avx2"} & set(runtimes.features()),
    reason="needs OpenVINO on a processor with AVX2",
)
@pytest.mark.parametrize("kind", ["edsr", "direct"])
def test_a_processor_without_vnni_gives_the_same_bytes(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = lows()[0]
    form = fast_of(kind)
    np.testing.assert_array_equal(without_vnni(form, image, tmp_path), reference(form, image)[1])
    # With weights of eight bits, which such a processor clips, it would not.
    monkeypatch.setattr(fast, "MOST_WEIGHT", 127)
    form = fast_of(kind)
    assert MOST_PAIR < 2 * 127 * 255 and set(saturating(form)) == {
        name for name, each in integer_layers(form).items() if each.bits == (7, 8)
    }
    assert (without_vnni(form, image, tmp_path) != reference(form, image)[1]).mean() > 0.01


@needs_runtimes
def test_a_file_that_needs_vnni_is_refused_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    form = fast_of("direct")
    path = tmp_path / "model.onnx"
    said = {"odm.scale": "2", "odm.multiple": "1", "odm.halo": "5"}
    monkeypatch.setattr(runtimes, "features", lambda: ["avx2", "avx512f"])
    monkeypatch.setattr(runtimes.platform, "machine", lambda: "x86_64")
    for needs in ("", "vnni"):
        path.write_bytes(to_onnx(form, {**said, "odm.needs": needs}).SerializeToString())
        if not needs:
            assert enlarger.OfFile(path).scale == 2
            continue
        with pytest.raises(OdmError, match="clipped to 16 bits on this processor, which has none of") as caught:
            enlarger.OfFile(path)
        assert "\n" not in str(caught.value)
        monkeypatch.setattr(runtimes, "features", lambda: ["avx2", "avx_vnni"])
        assert enlarger.OfFile(path).scale == 2


# What is refused


@pytest.mark.parametrize(("make", "says"), REFUSED)
def test_what_has_no_exact_form_has_no_fast_one(make: Callable[[], Backbone], says: str) -> None:
    network = make()
    images = lows(16 * network.multiple)
    with pytest.raises(OdmError, match=says) as caught:
        fast_form(network, images, images)
    assert "\n" not in str(caught.value)


class Doubled(Edsr):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


class OverTheImage(Edsr):
    """A skip from the image to the tail's input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.blocks[0](self.head(x - self.mean))
        return self.tail(self.upsampler(features + x.mean(1, keepdim=True)))


class Scaled(Edsr):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shallow = self.head(x - self.mean)
        return self.tail(self.upsampler(shallow + self.blocks[0](shallow) * 0.1)) + self.mean


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Doubled, "the output passes `mul` behind the last layer"),
        (OverTheImage, "joined with the image itself|passes `mean`"),
        (Scaled, "passes `mul`, which leaves the stream's scale"),
    ],
)
def test_what_8_bits_cannot_store_is_refused_in_one_line(kind: Any, says: str) -> None:
    network = quantized(kind(channels=8, blocks=1, scale=2), PLAIN)
    with pytest.raises(OdmError, match=says) as caught:
        fast_form(network, lows(), lows())
    assert "\n" not in str(caught.value)


# Files


@needs_runtimes
@pytest.mark.parametrize("kind", ["edsr", "direct", "offsets", "undone", "channel", "channel_2", "srresnet_bn", "rdn"])
def test_runtimes_compute_the_same_bits_in_integers(kind: str) -> None:
    form = fast_of(kind)
    model = to_onnx(form, {})
    assert differences(model, form) == []
    layers = list(integer_layers(form))
    generator = torch.Generator().manual_seed(8)
    image = (torch.rand(1, 3, 9, 14, generator=generator) * 255).round()
    ours, output = reference(form, image)
    for runtime in runtimes.runtimes():
        found = runtime.open(tapped(model, layers)).run(image.numpy())
        for name in layers:
            np.testing.assert_array_equal(found[codes_of(name)], ours[name], f"{runtime.name}: {name}")
        content = model.SerializeToString()
        np.testing.assert_array_equal(runtime.open(content).run(image.numpy())[OUTPUT], output)
        assert all(each.integer for each in runtime.operators(content, layers)), runtime.name


@every_form
def test_packed_is_the_same_form(make: Callable[[], Backbone], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    from test_networks import SMALL

    kind = request.node.callspec.id
    settings = SMALL.get(kind, NETWORK)
    if kind == "direct":
        settings = NETWORK.model_copy(update={"upsampler": "pixelshuffledirect"})
    about = Model.model_validate(ABOUT.model_dump() | {"network": settings.model_dump()})
    form = fast_form(make(), lows(), lows())
    path = tmp_path / "it.odmi"
    packed.write(path, about, form)
    said, again = packed.read(path)
    assert said == about and str(again) == str(form)
    with torch.inference_mode():
        assert torch.equal(form(lows()[0]), again(lows()[0]))
    packed.write(tmp_path / "again.odmi", said, again)
    assert (tmp_path / "again.odmi").read_bytes() == path.read_bytes()


def test_another_stored_code_is_named() -> None:
    form = fast_of("edsr")
    place = next(name for name, each in form.named_modules() if isinstance(each, Stored))
    for operator, index, part in (
        ("QuantizeLinear", 1, "scale of its input's codes"),
        ("QuantizeLinear", 2, "zero point of its input's codes"),
        ("DequantizeLinear", 1, "scale of codes as they are multiplied"),
    ):
        model = to_onnx(form, {})
        changed(model, node_of(model, place, operator), index, lambda values: values + 1)
        assert differences(model, form) == [f"{place}: {part}"]


@needs_runtimes
def test_export_certify_info_and_photographs(
    shipped: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = np.random.default_rng(3).integers(0, 256, (110, 230, 3), np.uint8)
    with chdir(tmp_path):
        export_step.run(None, str(shipped), "fast", "", ["skimage_test"], 1)
        folder = Path("exported/it_fast")
        said = capsys.readouterr().out
        assert "it, fast" in said and "| trained |" in said
        certificate = json.loads((folder / "certificate.json").read_text())
        assert certificate["psnr"]["trained"].keys() == certificate["psnr"]["integer form"].keys() == {"skimage_test"}
        certify_step.run(None, str(folder), [], 0)
        assert "equal to its integer form in" in capsys.readouterr().out
        for file, told in (("model.onnx", "fast"), ("model.odmi", "4 layers of W4A4, 3 layers of W7A8, 1 in fixed")):
            info.run(str(folder / file))
            assert told in capsys.readouterr().out
        Image.fromarray(image).save("photo.png")
        _, form = packed.read(folder / "model.odmi")
        with torch.inference_mode():
            (whole,) = (each.numpy() for each in form(torch.from_numpy(image).permute(2, 0, 1)[None].float()))
        for file in ("model.onnx", "model.odmi"):
            for window in (tiles.SMALLEST, 0):
                upscale_step.run(None, ["photo.png"], str(folder / file), "out.png", window=window, force=True)
                assert np.array_equal(np.asarray(Image.open("out.png")), whole.transpose(1, 2, 0))
