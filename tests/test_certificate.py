"""What runtimes make of an exported file, and that a certificate fails on whatever is another in it."""

import tempfile
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_deploy import CHANNEL, FORMS, RUN, lows, quantized
from torch import Tensor
from trial import NETWORK, ODM, PLAIN

from odm import model as model_file
from odm.deploy import packed
from odm.deploy.bundle import refuse
from odm.deploy.certificate import certify, faults, reference, table
from odm.deploy.exact import integer_form
from odm.deploy.integer import integer_layers
from odm.deploy.onnx_file import OUTPUT, codes_of, tapped, to_onnx
from odm.deploy.runtimes import runtimes
from odm.deploy.sets import Sets, chosen
from odm.errors import OdmError
from odm.methods.plain.settings import Plain
from odm.model import Model
from odm.networks.backbone import Backbone
from odm.networks.build import build
from odm.networks.custom.settings import Custom
from odm.settings.images import Images
from odm.steps import certify as certify_step
from odm.steps import export as export_step
from odm.steps import info
from odm.steps import upscale as upscale_step
from odm.upscaling import tiles

onnx = pytest.importorskip("onnx", reason="needs odm-sr[deploy]")
pytest.importorskip("onnxscript", reason="needs odm-sr[deploy]")

needs_runtimes = pytest.mark.skipif(not runtimes(), reason="neither onnxruntime nor openvino is installed")
ABOUT = Model(
    name="it", network=NETWORK, method=PLAIN, run=RUN, trained_on=["mine"], scores={}, settings="0", licence="CC0"
)
CUSTOM = """
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.spread = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=4)
        self.act = nn.PReLU()
        self.mix = nn.Conv2d(16, 16, 1, bias=False)

    def forward(self, x):
        return x + self.mix(self.act(self.spread(x)))


def network():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), Block(), Block(), nn.Conv2d(16, 12, 3, padding=1), nn.PixelShuffle(2)
    )
"""


def custom(method: Plain = PLAIN) -> Backbone:
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder) / "net.py"
        module.write_text(CUSTOM)
        layers = ["1.*", "2.mix"]
        settings = Custom(
            backbone="custom", module=str(module), build="network", layers=layers, value_range="0-1", scale=2
        )
        return quantized(build(settings), method)


NETWORKS: dict[str, Callable[[], Backbone]] = {
    name: FORMS[name]
    for name in ("direct", "offsets", "undone", "powers", "channel", "channel_2", "eccv", "pams", "srresnet_bn", "rdn")
} | {"custom": custom, "custom_channel": lambda: custom(CHANNEL)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Backbone, Backbone]:
    """An ONNX model, its integer form and what that is of."""
    network = quantized(build(NETWORK), ODM)
    form = integer_form(network, lows())
    return to_onnx(form, {"odm.name": "it"}), form, network


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    """One small photograph of squares, of odd sides."""
    from trial import photographs

    folder = tmp_path_factory.mktemp("images")
    photographs(folder, (7, 11), side=6)
    (folder / "mine" / "2.png").unlink()
    return Sets(["mine"], Images(train=["mine"], test=["mine"], scales=[2], folders={"mine": str(folder / "mine")}))


def copied(model: Any) -> Any:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


@needs_runtimes
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_runtimes_compute_the_same_bits(make: Callable[[], Backbone]) -> None:
    """Codes, and outputs before they are rounded; of another image than ranges were measured by, of another size."""
    form = integer_form(make(), lows())
    generator = torch.Generator().manual_seed(8)
    assert_same_bits(form, to_onnx(form, {}), (torch.rand(1, 3, 9, 14, generator=generator) * 255).round())


def assert_same_bits(form: Backbone, model: Any, image: Tensor) -> None:
    """Of a file and its form, in each runtime: all codes, and the output with them and without."""
    layers = integer_layers(form)
    ours, output = reference(form, image)
    for runtime in runtimes():
        found = runtime.open(tapped(model, list(layers))).run(image.numpy())
        for name in layers:
            np.testing.assert_array_equal(found[codes_of(name)], ours[name], f"{runtime.name}: {name}")
        np.testing.assert_array_equal(found[OUTPUT], output)
        np.testing.assert_array_equal(runtime.open(model.SerializeToString()).run(image.numpy())[OUTPUT], output)


@needs_runtimes
def test_a_certificate_counts_and_names_what_ran(exported: Any, images: Sets) -> None:
    model, form, network = exported
    found = certify(model, form, network, runtimes(), images)
    assert faults(found) == []
    assert sum(layer["codes"] for layer in found["layers"].values()) == 4 * 8 * 21 * 33
    assert found["output"]["bytes"] == 3 * 42 * 66
    assert found["psnr"].keys() == {"integer form", "trained", *(each.name for each in runtimes())}
    exact = {name: said for name, said in found["psnr"].items() if name != "trained"}
    assert len({str(said) for said in exact.values()}) == 1
    for said in found["runtimes"].values():
        assert said["operators"].keys() == integer_layers(form).keys()
        assert all(each["integer"] or each["why"] for each in said["operators"].values())
    text = table(found, "it")
    assert "0 of 22,176 codes and 0 of 8,316 bytes" in text and "`blocks.1.conv2`" in text
    refuse(found, Path("it"))


def node_of(model: Any, layer: str, operator: str, last: bool = False) -> Any:
    found = [each for each in model.graph.node if each.name.startswith(f"{layer}/") and each.op_type == operator]
    return found[-1 if last else 0]


def changed(model: Any, node: Any, place: int, change: Callable[[Any], Any]) -> Any:
    """The model with a constant of its own for one input of a node."""
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    for each in model.graph.node:
        if each.op_type == "Constant":
            constants[each.output[0]] = onnx.numpy_helper.to_array(each.attribute[0].t)
    before = constants[node.input[place]]
    after = np.asarray(change(before.copy()), before.dtype).reshape(before.shape)
    assert (after != before).any()
    model.graph.initializer.append(onnx.numpy_helper.from_array(after, "changed"))
    node.input[place] = "changed"
    return model


def another(values: Any) -> Any:
    """Of one code the sign."""
    flat = values.reshape(-1)
    flat[len(flat) // 2] *= -1
    return values


SABOTAGE: dict[str, tuple[str, int, bool, Callable[[Any], Any]]] = {
    "weight codes": ("DequantizeLinear", 0, True, another),
    "scale of its weight codes": ("DequantizeLinear", 1, True, lambda values: values * np.float32(1.001)),
    "scale of its input's codes": ("QuantizeLinear", 1, False, lambda values: values * np.float32(1.001)),
    "zero point of its input's codes": ("QuantizeLinear", 2, False, lambda values: values + 1),
    "clip of its input's codes": ("Clip", 2, False, lambda values: values - 1),
}


@needs_runtimes
@pytest.mark.parametrize("layer", ["blocks.0.conv1", "blocks.1.conv2"])
@pytest.mark.parametrize("part", [*SABOTAGE, "bias codes"])
def test_sabotage_fails_and_names_layer_and_part(
    part: str, layer: str, exported: Any, images: Sets, tmp_path: Path
) -> None:
    model, form, _ = exported
    model = copied(model)
    if part == "bias codes":
        node = next(
            each
            for each in model.graph.node
            if each.name.startswith(f"{layer}/") and each.input and each.input[0] == f"{layer}.bias"
        )
        changed(model, node, 0, lambda values: values + (np.arange(len(values)) == 3))
    else:
        operator, place, is_last, change = SABOTAGE[part]
        changed(model, node_of(model, layer, operator, is_last), place, change)
    found = certify(model, form, None, runtimes(), images)
    wrong = faults(found)
    assert wrong[0] == f"{layer}: {part} of the file is not the integer form's"
    for runtime in runtimes():  # a unit of a bias is less than most thresholds tell apart
        shows = any(each.startswith(f"{runtime.name}: ") for each in wrong)
        assert shows or part == "bias codes", "it shows in what is computed too"
    with pytest.raises(OdmError, match=f"not equal to its integer form: {layer}: {part}"):
        refuse(found, tmp_path)
    assert "Not equal" in table(found, "it")


@needs_runtimes
def test_another_float_weight_is_named_too(exported: Any, images: Sets) -> None:
    model, form, _ = exported
    for layer in ("head", "tail"):
        broken = copied(model)
        changed(broken, node_of(broken, layer, "Conv"), 1, lambda values: values * np.float32(1.001))
        assert faults(certify(broken, form, None, runtimes(), images))[0].startswith(f"{layer}: weights")


def test_files_pass_the_checker_and_name_their_layers(exported: Any) -> None:
    model, form, _ = exported
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    (output,) = inferred.graph.output
    assert output.name == OUTPUT and output.type.tensor_type.shape.dim[1].dim_value == 3
    assert [each.version for each in model.opset_import if not each.domain] == [18] and model.ir_version <= 9
    assert {each.name.partition("/")[0] for each in model.graph.node} >= set(integer_layers(form))
    assert {each.domain for each in model.graph.node} == {""}


# The commands


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file of an untrained network."""
    path = tmp_path_factory.mktemp("shipped") / "it.safetensors"
    model_file.write(path, ABOUT, quantized(build(NETWORK), PLAIN))
    return path


@needs_runtimes
def test_export_certify_and_info(shipped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with chdir(tmp_path):
        export_step.run(None, str(shipped), "exact", "", ["skimage_test"], 1)
        folder = Path("exported/it_exact")
        assert "0 of" in capsys.readouterr().out
        assert {each.name for each in folder.iterdir()} == {
            "model.onnx", "model.odmi", "certificate.json", "certificate.md"
        }  # fmt: skip
        certify_step.run(None, str(folder), [], 0)
        assert "equal to its integer form in" in capsys.readouterr().out
        for file, said in (
            ("model.onnx", "RGB, 0-255"),
            ("model.odmi", "4 layers of W4A4, 4 in fixed point"),
            ("certificate.json", "0 codes, 0 bytes differ"),
        ):
            info.run(str(folder / file))
            assert said in capsys.readouterr().out
        info.run(str(shipped))
        assert "plain, W4A4, seed 0" in capsys.readouterr().out.replace("seed 1", "seed 0")
        _, form = packed.read(folder / "model.odmi")
        form.get_submodule("blocks.1.conv1").weight[0, 0, 0, 0] *= -1  # type: ignore[index, operator]
        packed.write(folder / "model.odmi", ABOUT, form)
        with pytest.raises(OdmError, match=r"blocks\.1\.conv1: weight codes of the file"):
            certify_step.run(None, str(folder / "model.onnx"), [], 0)
        assert "model.odmi: other bytes than were certified" in capsys.readouterr().out


@needs_runtimes
@pytest.mark.parametrize("kind", [".onnx", ".odmi"])
def test_photographs_go_through_what_was_exported(kind: str, shipped: Path, tmp_path: Path) -> None:
    """In pieces to the bytes of the whole, and to those of the integer form."""
    image = np.random.default_rng(3).integers(0, 256, (110, 230, 3), np.uint8)
    with chdir(tmp_path):
        Image.fromarray(image).save("photo.png")
        export_step.run(None, str(shipped), "exact", "", ["skimage_test"], 1)
        _, form = packed.read(Path("exported/it_exact/model.odmi"))
        (whole,) = (each.numpy() for each in form(torch.from_numpy(image).permute(2, 0, 1)[None].float()))
        for window in (tiles.SMALLEST, 0):
            upscale_step.run(
                None, ["photo.png"], f"exported/it_exact/model{kind}", "out.png", window=window, force=True
            )
            found = np.asarray(Image.open("out.png"))
            assert np.array_equal(found, np.rint(whole.transpose(1, 2, 0).clip(0, 255)))
        upscale_step.run(None, ["photo.png"], f"exported/it_exact/model{kind}", "")
        assert Path("photo_x2_it_exact.png").exists()


@needs_runtimes
def test_photographs_do_not_go_through_just_any_file(exported: tuple[Any, Backbone, Backbone], tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(exported[0].SerializeToString())
    (tmp_path / "none.onnx").write_bytes(b"x")
    for name, says in (
        ("other.onnx", "none of `odm export` as it is now"),
        ("none.onnx", "no ONNX model"),
        ("gone.onnx", "no such file"),
        ("gone.odmi", "no such file"),
    ):
        with pytest.raises(OdmError, match=says):
            upscale_step.run(None, ["photo.png"], str(tmp_path / name), "")


def test_what_is_no_file_of_ours_is_refused_in_one_line(tmp_path: Path) -> None:
    for name, content, says in (
        ("it.png", b"x", "no file of ours has this suffix"),
        ("it.onnx", b"x", "no ONNX model"),
        ("it.odmi", b"x", "damaged, or none of"),
        ("it.safetensors", b"x", "damaged, or none of ours"),
        ("it.json", b"{}", "carries no digest"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(OdmError, match=says) as caught:
            info.run(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    with pytest.raises(OdmError, match="no such file"):
        info.run(str(tmp_path / "gone.onnx"))
    with pytest.raises(OdmError, match=r"certificate\.json: no such file"):
        certify_step.run(None, str(tmp_path), [], 0)
    with pytest.raises(OdmError, match="'set55' is no set of images; did you mean 'set5'"):
        chosen(["set55"], None)
