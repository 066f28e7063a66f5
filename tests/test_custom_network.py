"""A network of another repository's kind through every step, from one Python file and its weights."""

import json
import re
import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from test_errors import one_line
from test_front_ends import ROOT, differences, dvc_graph, project, snakemake_graph  # noqa: F401
from torch import Tensor

from odm import card, inference
from odm.card import origin
from odm.errors import OdmError
from odm.networks import weights
from odm.networks.build import build
from odm.networks.cost import cost
from odm.networks.custom.network import Custom
from odm.settings.reading import load
from odm.settings.suite import Settings
from odm.steps import check, data, evaluate, figures, mismatch, pretrain, tables, train

# As others write them: values in 0-1, groups, dilation, a strided branch, and sides that have to be even.
MODULE = '''
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass
class Shape:
    width: int
    groups: int


class Block(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.spread = nn.Conv2d(shape.width, shape.width, 3, padding=2, dilation=2, groups=shape.groups)
        self.act = nn.LeakyReLU(0.1, inplace=True)
        self.mix = nn.Conv2d(shape.width, shape.width, 1, bias=False)

    def forward(self, x):
        return x + self.mix(self.act(self.spread(x)))


class FastNet(nn.Module):
    def __init__(self, width=16, groups=4, depth=2, upscale=2):
        super().__init__()
        if width % groups:
            raise ValueError(f"width {width} is no multiple of\\n{groups}")
        self.upscale = upscale
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(*(Block(Shape(width, groups)) for _ in range(depth)))
        self.down = nn.Conv2d(width, width, 3, stride=2, padding=1, groups=groups)
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2, groups=groups)
        self.gate = nn.Linear(width, width)
        self.tail = nn.Conv2d(width, 3 * upscale**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(upscale)

    def forward(self, x):
        assert x.min() >= 0 and x.max() <= 1, "0-1, please"
        y = F.leaky_relu(self.head(x), 0.1)
        y = self.body(y)
        y = y + self.up(F.leaky_relu(self.down(y), 0.1))
        y = y + self.gate(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.shuffle(self.tail(y)) + F.interpolate(x, scale_factor=self.upscale, mode="bilinear")


def stranger(**arguments):
    """Networks that will not do, one for each word."""
    kind = arguments.pop("kind")
    network = FastNet(**arguments)
    if kind == "list":
        network.forward = lambda x: [x]
    elif kind == "shared":
        network.body[1].mix = network.body[0].mix
    elif kind == "tied":
        network.body[1].act = network.body[0].act = nn.PReLU()
    elif kind == "twice":
        network.up.register_forward_hook(lambda *parts: network.down(parts[-1]) is None or None)
    elif kind == "reflecting":
        network.head = nn.Conv2d(3, 16, 3, padding=1, padding_mode="reflect")
    elif kind == "hooked":
        network.head.register_forward_pre_hook(lambda *_: None)
    elif kind == "one channel":
        network.head = nn.Conv2d(1, 16, 3, padding=1)
        network.forward = lambda x: network.shuffle(nn.functional.pad(network.head(x), [0] * 5 + [-12]))
    elif kind == "frozen":
        network.requires_grad_(False)
    elif kind == "idle":
        network.idle = nn.Linear(3, 3)
    elif kind == "no module":
        return 3
    return network
'''
BIAS = "module.head.bias"
LAYERS = ["body.*.spread", "body.*.mix", "down", "gate"]
TRAINING = {"steps": 60, "batch": 4, "patch": 16, "rate": 0.002, "schedule": "cosine", "log_every": 30}
FAST = {
    "backbone": "custom",
    "module": "fast_net.py",
    "build": "FastNet",
    "layers": LAYERS,
    "value_range": "0-1",
    "features": "body",
    "multiple": 2,
    "scale": 2,
}
RUNS = ("w4a4", "w4a4_pth", "w4a4_pams")
SETTINGS = {
    "suite": "own",
    "device": "cpu",
    "threads": 1,
    "images": {"train": ["mine"], "test": ["held"], "scales": [2], "folders": {"mine": "mine", "held": "held"}},
    "networks": {"trained": FAST},
    "pretraining": TRAINING,
    "qat": TRAINING | {"steps": 40, "rate": 0.0005, "calibration_batches": 2},
    "mismatch": {"batches": 2},
    "methods": {"odm": {"kind": "odm"}, "pams": {"kind": "pams", "calibration_steps": 5}},
    "dials": {},
    "runs": {"w4a4": {"network": "trained", "method": "odm", "weight_bits": 4, "activation_bits": 4}},
}


def put(settings: dict) -> Settings:
    """In force, with the digest that the first error names for each network."""
    for _ in range(10):
        Path("params.yaml").write_text(yaml.safe_dump(settings))
        try:
            return load()
        except OdmError as error:
            found = re.fullmatch(r"params\.yaml: networks\.(\w+)\.digest: .*?(sha256:\w{16}).*", str(error))
            if found is None:
                raise
            settings["networks"][found[1]] = settings["networks"][found[1]] | {"digest": found[2]}
    raise AssertionError("the digest is refused again and again")


def photograph(seed: int) -> Image.Image:
    """Smooth shapes and some edges, 64 x 56."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :56] / 20
    waves = [np.sin(a * x + b * y + c) for a, b, c in random.uniform(-3, 3, (6, 3))]
    channels = [128 + 50 * waves[i] + 40 * np.sign(waves[i + 3]) for i in range(3)]
    return Image.fromarray(np.stack(channels, -1).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the network is trained, and brought back as safetensors and as a checkpoint."""
    folder = tmp_path_factory.mktemp("own")
    with chdir(folder):
        Path("fast_net.py").write_text(MODULE)
        for split, count in (("mine", 4), ("held", 2)):
            Path(split).mkdir()
            for index in range(count):
                photograph(len(split) * 10 + index + (split == "held") * 100).save(f"{split}/{index}.png")
        settings = put(json.loads(json.dumps(SETTINGS)))
        for split in data.SPLITS:
            data.run(settings, split)
        pretrain.run(settings, "trained")
        stored = weights.load(Path("results/own/networks/trained/weights.safetensors"), origin(settings, "trained"))
        state = {key.removeprefix("network."): value for key, value in stored.items()}
        save_file(state, "fast_net.safetensors")
        torch.save(
            {"epoch": 3, "params": {}, "params_ema": {f"module.{key}": value for key, value in state.items()}},
            "fast_net.pth",
        )
        content = json.loads(json.dumps(SETTINGS))
        content["networks"] = {
            "plain": FAST | {"weights": "fast_net.safetensors"},
            "pth": FAST | {"weights": "fast_net.pth"},
        }
        common = {"weight_bits": 4, "activation_bits": 4}
        content["runs"] = {
            "w4a4": {"network": "plain", "method": "odm"} | common,
            "w4a4_pth": {"network": "pth", "method": "odm"} | common,
            "w4a4_pams": {"network": "plain", "method": "pams"} | common,
        }
        settings = put(content)
        for network in settings.networks:
            pretrain.run(settings, network)
            mismatch.run(settings, network)
            evaluate.run(settings, network)
        for run in RUNS:
            train.run(settings, run)
            evaluate.run(settings, run)
    return folder


@pytest.fixture
def own(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to work in, and the working directory."""
    shutil.copytree(finished, tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")
    return tmp_path / "own"


def metrics(kind: str, name: str) -> dict:
    return json.loads(Path(f"results/own/{kind}/{name}/metrics.json").read_text())


def psnr(found: dict) -> float:
    return float(np.mean([each["psnr"] for each in found["scores"]["held"].values()]))


def test_weights_come_as_they_are(own: Path) -> None:
    """The same values from both files, stored; a history of one row; the trained network's own scores."""
    first, second = (
        weights.load(Path(f"results/own/networks/{name}/weights.safetensors"), origin(load(), name))
        for name in ("plain", "pth")
    )
    given = torch.load("fast_net.pth", weights_only=True)["params_ema"]
    assert first.keys() == second.keys() == {f"network.{key.removeprefix('module.')}" for key in given}
    for key, value in first.items():
        assert torch.equal(value, second[key])
        assert torch.equal(value, given[f"module.{key.removeprefix('network.')}"])
    history = Path("results/own/networks/plain/history.csv").read_text().splitlines()
    assert history[0] == "step,rate,loss"
    assert re.fullmatch(r"0,0,\d+\.\d+", history[1])
    assert len(history) == 2
    assert metrics("networks", "plain")["scores"] == metrics("networks", "pth")["scores"]
    trained = Path("results/own/networks/trained/history.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in trained] == ["step", "30", "60"]


def test_values_are_scaled_and_images_padded(own: Path) -> None:
    network = inference.load(load(), "plain", torch.device("cpu"))
    assert isinstance(network, Custom)
    low = torch.rand(1, 3, 10, 12) * 255
    torch.testing.assert_close(network(low) / 255, network.network(low / 255))
    assert network(low[:, :, :9, :7]).shape == (1, 3, 18, 14)
    assert inference.upscale(network, np.zeros((5, 3), np.uint8)).shape == (10, 6, 3)


def test_quantized_it_is_close_to_float(own: Path) -> None:
    expected = [f"network.{each}" for each in ("body.0.spread", "body.0.mix", "body.1.spread", "body.1.mix")]
    expected += ["network.down", "network.gate"]
    for name in RUNS:
        found = metrics("runs", name)
        assert found["quantized_layers"] == expected
        assert abs(psnr(found) - psnr(metrics("networks", "plain"))) < 1
    assert metrics("runs", "w4a4")["scores"] == metrics("runs", "w4a4_pth")["scores"]
    assert metrics("runs", "w4a4")["offsets"]["scale"]


def test_tables_figures_check_and_upscale(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load()
    tables.run(settings)
    names = ("tables.md", "tables.csv", "tables.tex", "paper.csv", "timings.csv")
    written = (*(f"results/own/{name}" for name in names), "results/tables.md")
    assert capsys.readouterr().out == f"{', '.join(written)}\n"
    figures.run(settings)
    named = capsys.readouterr().out.removeprefix("results/own/figures/").rstrip().split(", ")
    assert sorted(named) == sorted(path.name for path in Path("results/own/figures").iterdir())
    assert "4/4" in Path("results/tables.md").read_text()
    assert len(list(Path("results/own/figures").glob("*.png"))) >= 4
    check.run(settings)
    parameters = sum(each.numel() for each in build(settings.networks["plain"]).parameters())
    assert f"plain: {parameters:,} parameters, weights of fast_net.safetensors" in capsys.readouterr().out
    from odm.steps import upscale

    upscale.run(settings, ["held/0.png"], "w4a4", "large.png")
    with Image.open("large.png") as large:
        assert large.size == (112, 128)


def test_costs_count_groups_strides_and_transposes(own: Path) -> None:
    """By hand, for 640 x 360 places."""
    settings = load()
    places = 640 * 360
    grouped, pointwise = 16 * 4 * 9, 16 * 16
    quantized = 2 * (grouped + pointwise) + grouped / 4 + pointwise
    rest = 16 * 3 * 9 + 16 * 4 * 4 / 4 + 12 * 16 * 9
    found = cost(inference.load(settings, "plain", torch.device("cpu")))
    assert found.parameters == sum(each.numel() for each in build(settings.networks["plain"]).parameters())
    assert found.gmac == pytest.approx(places * (quantized + rest) / 1e9)
    found = cost(inference.load(settings, "w4a4", torch.device("cpu")))
    assert found.bitops_t == pytest.approx(places * (16 * quantized + 1024 * rest) / 1e12)
    weights_saved = 2 * (grouped + pointwise) + grouped + pointwise
    assert found.storage_k == pytest.approx((found.parameters - weights_saved * 7 / 8) / 1e3)


# Mistakes: one line each


def changed(**changes: object) -> Callable[[], None]:
    """Settings of `plain` with some of its keys changed, and the digest of whatever files they name."""

    def change() -> None:
        content = yaml.safe_load(Path("params.yaml").read_text())
        content["networks"]["plain"] |= changes
        put(content)

    return change


def without(**changes: object) -> Callable[[], None]:
    return changed(build="stranger", weights=None, **changes)


def rewritten(change: Callable[[dict[str, Tensor]], object], file: str = "other.pth") -> Callable[[], None]:
    """Other weights for `plain`."""

    def write() -> None:
        state = dict(torch.load("fast_net.pth", weights_only=True)["params_ema"])
        made = change(state) or state
        torch.save(made, file)
        changed(weights=file)()

    return write


def safetensors_of(change: Callable[[Tensor], Tensor]) -> Callable[[], None]:
    def write() -> None:
        state = torch.load("fast_net.pth", weights_only=True)["params_ema"]
        made = {key.removeprefix("module."): change(value) for key, value in state.items()}
        save_file(made, "other.safetensors")
        changed(weights="other.safetensors")()

    return write


def garbage(file: str) -> Callable[[], None]:
    def write() -> None:
        Path(file).write_text("neither")
        changed(weights=file)()

    return write


def source(old: str, new: str) -> Callable[[], None]:
    def write() -> None:
        text = Path("fast_net.py").read_text()
        assert old in text
        Path("fast_net.py").write_text(text.replace(old, new))
        changed()()

    return write


MISTAKES = {
    "class": (changed(build="FastNets"), r"fast_net\.py: no class or function 'FastNets'; did you mean 'FastNet'\?"),
    "syntax": (source("upscale=2):", "upscale=2:"), r"fast_net\.py, line \d+: SyntaxError: .*"),
    "import": (
        source("import torch\n", "import torch, basicsr\n"),
        r"fast_net\.py, line 4: ModuleNotFoundError: No module named 'basicsr'",
    ),
    "constructor": (
        changed(arguments={"width": 18}),
        r"fast_net\.py, line \d+: ValueError: width 18 is no multiple of \(from FastNet with the `arguments` .*\)",
    ),
    "arguments": (
        changed(arguments={"widht": 18}),
        r"fast_net\.py: TypeError: .*unexpected keyword argument 'widht'.* \(from FastNet .*\)",
    ),
    "no module": (
        without(arguments={"kind": "no module"}),
        r"fast_net\.py: stranger makes no torch module with parameters",
    ),
    "not multiple": (
        changed(multiple=1),
        r"fast_net\.py, line \d+: RuntimeError: .* \(on an image of 17 x 24; if sides must .* set `multiple`\)",
    ),
    "value range": (
        changed(value_range="0-255"),
        r"fast_net\.py, line \d+: AssertionError: 0-1, please \(on an image of 18 x 24; .*\)",
    ),
    "scale": (
        changed(arguments={"upscale": 3}),
        r"fast_net\.py: FastNet makes \(1, 3, 54, 72\) of \(1, 3, 18, 24\); with scale 2 it .* \(1, 3, 36, 48\)",
    ),
    "list": (without(arguments={"kind": "list"}), r"fast_net\.py: stranger returns a list; it should return the image"),
    "pattern": (
        changed(layers=["body.*.conv"]),
        r"fast_net\.py: layers: 'body\.\*\.conv' is nothing in FastNet; (there are|did you mean).*",
    ),
    "kind": (
        changed(layers=["body.*.act"]),
        r"fast_net\.py: layers: 'body\.\*\.act' is a LeakyReLU \('body\.0\.act'\); Conv2d and Linear alone .*",
    ),
    "transposed": (changed(layers=["up"]), r"fast_net\.py: layers: 'up' is a ConvTranspose2d \('up'\); .*"),
    "shared": (
        without(arguments={"kind": "shared"}),
        r"fast_net\.py: layers: 'body\.0\.mix' is also 'body\.1\.mix': one module in two places; give .*",
    ),
    "tied": (
        without(arguments={"kind": "tied"}),
        r"fast_net\.py: 'body\.0\.act\.weight' and 'body\.1\.act\.weight' are one tensor; give each module its own",
    ),
    "twice": (
        without(arguments={"kind": "twice"}),
        r"fast_net\.py: layers: 'down' runs 2 times in a forward pass; give each call a copy of its own, in "
        r"fast_net\.py and in the weights, since a quantized layer has one range",
    ),
    "idle": (
        without(arguments={"kind": "idle"}, layers=["idle"]),
        r"fast_net\.py: layers: 'idle' runs 0 times in a forward pass; it does nothing, .* take it out of `layers` .*",
    ),
    "one channel": (
        without(arguments={"kind": "one channel"}, layers=["head"]),
        r"fast_net\.py: stranger takes images of one channel, and gets three \(RGB\); have stranger enlarge each .*",
    ),
    "frozen": (
        without(arguments={"kind": "frozen"}),
        r"fast_net\.py: every parameter of stranger is frozen, so nothing can be trained; leave .*",
    ),
    "nothing excluded": (
        changed(layers=["body.*", "!boby.*"]),
        r"fast_net\.py: layers: '!boby\.\*' is nothing in FastNet; .*",
    ),
    "all excluded": (
        changed(layers=["!*", "down"]),
        r"fast_net\.py: layers: none is left of FastNet; name some that no pattern with ! takes out",
    ),
    "reflecting": (
        without(arguments={"kind": "reflecting"}, layers=["head"]),
        r"fast_net\.py: layers: 'head' pads by 'reflect', which its quantized form would lose",
    ),
    "hooked": (
        without(arguments={"kind": "hooked"}, layers=["head"]),
        r"fast_net\.py: layers: 'head' has hooks \(of weight_norm or the like\), which its quantized form would lose",
    ),
    "missing keys": (
        rewritten(lambda state: [state.pop(key) for key in list(state)[:2]] and None),
        r"other\.pth: does not fit FastNet: it lacks 'body\.0\.spread\.bias' \(and 1 more\); look at `arguments`",
    ),
    "unknown keys": (
        rewritten(lambda state: {key.replace("gate", "door"): value for key, value in state.items()}),
        r"other\.pth: does not fit FastNet: it lacks 'gate.weight' \(and 1 more\) and has an unknown 'door.bias' .*",
    ),
    "shape": (
        changed(arguments={"groups": 2}),
        r"fast_net\.safetensors: does not fit FastNet: 'body\.0\.spread\.weight' is of shape \(16, 4, 3, 3\), not .*",
    ),
    **{
        f"weights: {name}": (
            rewritten(lambda state, change=change: state.update({BIAS: change(state[BIAS])})),
            rf"other\.pth: 'head\.bias' {said}; save plain, dense tensors, such as `value\.float\(\)`",
        )
        for name, change, said in (
            ("float8", lambda x: x.to(torch.float8_e4m3fn), r"is quantized already \(torch\.float8_e4m3fn\)"),
            (
                "quantized",
                lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
                r"is quantized already \(torch\.qint8\)",
            ),
            ("sparse", lambda x: x.to_sparse(), r"is not dense \(torch\.sparse_coo\)"),
            ("meta", lambda x: x.to("meta"), r"has a shape but no values \(a meta tensor\)"),
            ("integer", lambda x: x.long(), r"is of torch\.int64, not torch\.float32"),
            ("complex", lambda x: x.to(torch.complex64), r"is of torch\.complex64, not torch\.float32"),
        )
    },
    "float8 safetensors": (
        safetensors_of(lambda value: value.to(torch.float8_e5m2)),
        r"other\.safetensors: '.*' is quantized already \(torch\.float8_e5m2\); save plain, dense tensors, .*",
    ),
    "integer keys": (
        rewritten(lambda state: dict(enumerate(state.values()))),
        r"other\.pth: 0 is no name of a tensor; save `network\.state_dict\(\)`",
    ),
    "not finite": (
        rewritten(lambda state: state["module.head.bias"].fill_(torch.nan) is None),
        r"other\.pth: 'head\.bias' holds values that are not finite",
    ),
    "not finite output": (
        rewritten(lambda state: [value.fill_(1e30) for value in state.values()] and None),
        r"other\.pth: FastNet makes values that are not finite of an image; look at `value_range`",
    ),
    "whole network": (
        rewritten(lambda state: {"net": torch.nn.ReLU()}),
        r"other\.pth: damaged, or no checkpoint of .*",
    ),
    "no tensors": (rewritten(lambda state: {"epoch": 3}), r"other\.pth: 'epoch' is no tensor but int; save .*"),
    "garbage": (garbage("other.pth"), r"other\.pth: damaged, or no checkpoint of weights alone .*"),
    "garbage safetensors": (garbage("other.safetensors"), r"other\.safetensors: damaged, or no safetensors file"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake: str, own: Path) -> None:
    make, said = MISTAKES[mistake]
    make()
    with pytest.raises(OdmError) as raised:
        pretrain.run(load(), "plain")
    assert re.fullmatch(said, str(raised.value)), raised.value


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
        lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
        lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
        lambda state: {key.replace("body.", "body._orig_mod."): value for key, value in state.items()},
        lambda state: {"model": {"state_dict": state}, "epoch": 3},
        lambda state: {"state_dict": {"params": {f"module.{key}": value for key, value in state.items()}}},
        lambda state: {key: value.double() for key, value in state.items()},
    ],
)
def test_weights_are_taken_out_of_what_wraps_them(wrap: Callable, own: Path) -> None:
    given = torch.load("fast_net.pth", weights_only=True)["params_ema"]
    state = {key.removeprefix("module."): value for key, value in given.items()}
    torch.save(wrap(state), "wrapped.pth")
    network = build(load().networks["plain"])
    network.take(Path("wrapped.pth"))
    assert all(torch.equal(value, state[key]) for key, value in network.network.state_dict().items())


def test_weights_that_hold_themselves(own: Path) -> None:
    content: dict = {}
    content["model"] = content
    torch.save(content, "endless.pth")
    with pytest.raises(OdmError, match=r"endless\.pth: 'model' is no tensor but dict"):
        build(load().networks["plain"]).take(Path("endless.pth"))


@pytest.mark.parametrize("layers", [["body.*", "!body.0.*", "down"], ["!body.0.*", "body.*", "down"]])
def test_layers_but_some(layers: list[str], own: Path) -> None:
    changed(layers=layers)()
    names = build(load().networks["plain"]).placement("blocks").layers
    assert names == [f"network.{each}" for each in ("body.1.spread", "body.1.mix", "down")]


def test_a_mistake_is_one_line_of_the_command(own: Path) -> None:
    changed(build="FastNets")()
    assert one_line("pretrain", "plain") == "odm: fast_net.py: no class or function 'FastNets'; did you mean 'FastNet'?"
    Path("fast_net.pth").unlink()
    line = one_line("pretrain", "plain")
    assert line == "odm: params.yaml: networks.pth.weights: fast_net.pth: No such file or directory; correct it"


def test_methods_that_need_parts_it_does_not_name(own: Path) -> None:
    changed(features="feature")()
    settings = load()
    pretrain.run(settings, "plain")
    mismatch.run(settings, "plain")
    with pytest.raises(OdmError, match=r"FastNet has no module 'feature'; methods that distil need `features`"):
        train.run(settings, "w4a4_pams")
    with pytest.raises(OdmError, match=r"no_body: FastNet of fast_net\.py names no blocks to leave out"):
        build(settings.networks["plain"]).without_body()


# Files that change


def test_changed_files_are_refused_until_the_settings_say_so(own: Path) -> None:
    """In every command and in Snakemake; then what was stored is refused, until pretraining runs again."""
    before = load().networks["plain"].digest
    Path("fast_net.py").write_text(MODULE + "\n# another\n")
    with pytest.raises(OdmError) as raised:
        load()
    said = (
        r"params\.yaml: networks\.plain\.digest: fast_net\.py and fast_net\.safetensors now give (sha256:\w{16}), not "
    )
    found = re.fullmatch(rf"{said}{before}; write that there to run its jobs again", str(raised.value))
    assert found
    changed()()
    settings = load()
    assert settings.networks["plain"].digest == found[1]
    with pytest.raises(OdmError, match=r"weights\.safetensors: trained under other settings than those in force"):
        mismatch.run(settings, "plain")
    with pytest.raises(OdmError, match="trained under other settings"):
        evaluate.run(settings, "w4a4")
    pretrain.run(settings, "plain")
    mismatch.run(settings, "plain")


def test_both_tools_have_its_graph(project: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    for file in ("params.yaml", "fast_net.py", "fast_net.pth", "fast_net.safetensors"):
        shutil.copy(own / file, project)
    monkeypatch.chdir(project)
    graph = snakemake_graph(project)
    assert not differences(graph, dvc_graph(project))
    assert card.card(load(), "pretrain", "plain").settings["network"]["digest"] == load().networks["plain"].digest


def test_weights_that_are_given_need_no_pretraining(own: Path) -> None:
    """To leave the block out is no mistake, and changes nothing, as long as no network is to be trained."""
    content = yaml.safe_load(Path("params.yaml").read_text())
    content["pretraining"] |= {key: content["qat"][key] for key in ("batch", "patch")}
    Path("params.yaml").write_text(yaml.safe_dump(content))
    assert all(each["weights"] for each in content["networks"].values())
    with_it = {
        job: card.card(load(), *job).digest
        for job in card.jobs(load())
        if job[0] not in ("tables", "report", "figures")
    }
    del content["pretraining"]
    Path("params.yaml").write_text(yaml.safe_dump(content))
    assert with_it == {job: card.card(load(), *job).digest for job in with_it}
    pretrain.run(load(), "plain")
    del content["networks"]["plain"]["weights"]
    Path("params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(OdmError, match=r"params\.yaml: pretraining: missing; add it"):
        load()
