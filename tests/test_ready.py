"""Float networks that others trained: found or fetched, read as published, and taken over by `odm pretrain`."""

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import phone
import pytest
import torch
import yaml
from safetensors.torch import save_file
from test_download import Server, server, sha256  # noqa: F401
from test_errors import one_line
from torch import Tensor, nn
from trial import photographs

from odm import inference
from odm.card import card, origin
from odm.errors import OdmError
from odm.images.decode import read_image
from odm.images.imresize import imresize
from odm.images.metrics import score
from odm.networks import ready, weights
from odm.networks.backbone import MEAN
from odm.networks.build import build
from odm.networks.catalogue import READY, Ready
from odm.networks.edsr.network import Edsr
from odm.networks.edsr.settings import Edsr as Settings
from odm.settings.reading import load
from odm.settings.suite import Settings as Suite
from odm.steps import data, pretrain

DIRECT = Settings(backbone="edsr", channels=6, blocks=2, scale=2, upsampler="pixelshuffledirect")
BASELINE = Settings(backbone="edsr", channels=6, blocks=2, scale=4)
TRAINING = {"steps": 20, "batch": 2, "patch": 12, "rate": 0.002, "schedule": "cosine"}
SETTINGS = {
    "suite": "taken",
    "device": "cpu",
    "images": {"train": ["mine"], "test": ["held"], "scales": [2], "folders": {"mine": "mine", "held": "held"}},
    "networks": {"small": DIRECT.model_dump(exclude_none=True) | {"weights": "small.tflite"}},
    "mismatch": {"batches": 2},
    "qat": TRAINING,
    "methods": {"plain": {"kind": "plain"}},
    "dials": {},
    "runs": {"w4a4": {"network": "small", "method": "plain", "weight_bits": 4, "activation_bits": 4}},
}


def taken(settings: Settings, file: Path) -> dict[str, Tensor]:
    network = build(settings.model_copy(update={"seed": 2}))
    network.take(file)
    return network.state_dict()


def equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite of one small network whose weights are a file of a phone's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ready.VARIABLE, raising=False)
    photographs(tmp_path, (6, 8), side=8)
    Path("params.yaml").write_text(yaml.safe_dump(SETTINGS))
    Path("small.tflite").write_bytes(phone.file_of(build(DIRECT), 9, 13))
    return tmp_path


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_phone_network_is_the_function_that_its_runtime_computes(scale: int, tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    settings = DIRECT.model_copy(update={"scale": scale})
    network = build(settings)
    file = tmp_path / "phone.tflite"
    file.write_bytes(phone.file_of(network, 9, 13))
    assert equal(taken(settings, file), network.state_dict())

    x = torch.rand(1, 3, 9, 13) * 255
    runtime = Interpreter(str(file))
    runtime.allocate_tensors()
    runtime.set_tensor(runtime.get_input_details()[0]["index"], x.permute(0, 2, 3, 1).numpy().copy())
    runtime.invoke()
    theirs = torch.from_numpy(runtime.get_tensor(runtime.get_output_details()[0]["index"])).permute(0, 3, 1, 2)
    torch.testing.assert_close(theirs, network(x).detach().clamp(0, 255), rtol=0, atol=1e-3)


def test_damaged_phone_files(tmp_path: Path) -> None:
    """Cut or with flipped bits: one line, or weights all the same; never a hang, never a traceback."""
    whole = phone.file_of(build(DIRECT), 9, 13)
    drawn = random.Random(0)
    file = tmp_path / "damaged.tflite"
    refused = 0
    for _ in range(200):
        content = bytearray(whole)
        if drawn.random() < 0.3:
            del content[drawn.randrange(len(content)) :]
        else:  # in the tables, which are at the beginning and the end
            for _ in range(3):
                content[drawn.randrange(-1500, 500)] ^= 1 << drawn.randrange(8)
        file.write_bytes(content)
        try:
            taken(DIRECT, file)
        except OdmError as caught:
            error = caught
        else:
            continue
        assert "\n" not in str(error) and str(file) in str(error)
        refused += 1
    assert refused > 100


def other_operator() -> bytes:
    file = phone.File()
    x = file.tensor([1, 9, 13, 3])
    return file.bytes(x, file.operator(phone.tflite.BuiltinOperator.LOGISTIC, [x], [1, 9, 13, 3]))


def quantized_already() -> bytes:
    file = phone.File()
    x = file.tensor([1, 9, 13, 3])
    y = file.convolution(x, nn.Conv2d(3, 4, 3, padding=1))
    file.tensors[1] = (*file.tensors[1][:2], phone.tflite.TensorType.INT8)
    return file.bytes(x, y)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "damaged, or no TensorFlow Lite file"),
        (b"PK\3\4" * 100, "damaged, or no TensorFlow Lite file"),
        (other_operator(), "has an operator LOGISTIC; only .* are read"),
        (quantized_already(), "'tensor 1' is quantized already; take the float file"),
        (
            phone.file_of(build(DIRECT.model_copy(update={"blocks": 3})), 9, 13),
            "does not fit Edsr: .*; look at the network's settings",
        ),
        (
            phone.file_of(build(DIRECT.model_copy(update={"channels": 5})), 9, 13),
            r"does not fit Edsr: 'head.weight' is of shape \(5, 3, 3, 3\), not \(6, 3, 3, 3\); .*",
        ),
    ],
)
def test_phone_files_that_are_no_such_network(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "other.tflite"
    file.write_bytes(content)
    with pytest.raises(OdmError, match=rf"^{re.escape(str(file))}: {said}$"):
        taken(DIRECT, file)


def of_authors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As EDSR's authors name an EDSR's tensors, with their convolutions of the mean colour."""
    found = {}
    for key, value in state.items():
        name, kind = key.rsplit(".", 1)
        block = re.fullmatch(r"blocks\.(\d+)\.conv([12])", name)
        found[
            f"body.{block[1]}.body.{2 * int(block[2]) - 2}.{kind}"
            if block
            else {"head": "head.0", "last": "body.2", "tail": "tail.1"}.get(name, f"tail.0.{name[-1]}") + f".{kind}"
        ] = value
    for layer, sign in (("sub_mean", -1.0), ("add_mean", 1.0)):
        found |= {f"{layer}.weight": torch.eye(3).view(3, 3, 1, 1), f"{layer}.bias": sign * torch.tensor(MEAN)}
    return found


def of_basicsr(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    begins = {"head": "conv_first", "last": "conv_after_body", "tail": "conv_last"}
    found = {}
    for key, value in state.items():
        name, kind = key.rsplit(".", 1)
        name = begins.get(name, name.replace("blocks.", "body.").replace("upsampler.", "upsample."))
        found[f"{name}.{kind}"] = value
    return found


@pytest.mark.parametrize("named", [dict, of_authors, of_basicsr])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_names_of_others(named: Callable[..., dict[str, Tensor]], scale: int, tmp_path: Path) -> None:
    settings = BASELINE.model_copy(update={"scale": scale})
    state = build(settings).state_dict()
    torch.save({"params": {f"module.{key}": value for key, value in named(state).items()}}, tmp_path / "theirs.pth")
    assert equal(taken(settings, tmp_path / "theirs.pth"), state)


@pytest.mark.parametrize("backbone", ["edsr", "rdn", "srresnet", "swinir"])
def test_every_backbone_takes_its_own_weights(backbone: str, tmp_path: Path) -> None:
    shape = {
        "edsr": {"channels": 6, "blocks": 2},
        "rdn": {"channels": 6, "growth": 4, "blocks": 2, "layers": 2},
        "srresnet": {"channels": 6, "blocks": 2},
        "swinir": {"channels": 12, "blocks": 1, "layers": 2, "heads": 2, "window": 4},
    }[backbone]
    content = SETTINGS | {
        "networks": {"small": {"backbone": backbone, "scale": 2, "weights": "theirs.safetensors"} | shape}
    }
    settings = Suite.model_validate(content).networks["small"]
    state = build(settings).state_dict()
    save_file(state, tmp_path / "theirs.safetensors")
    network = build(settings.model_copy(update={"seed": 2}))
    network.take(tmp_path / "theirs.safetensors")
    assert equal(network.state_dict(), state)


def test_pretrain_takes_them_over(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load()
    data.run(settings, "train")
    pretrain.run(settings, "small")
    stored = weights.load(Path("results/taken/networks/small/weights.safetensors"), origin(settings, "small"))
    assert equal(stored, build(DIRECT).state_dict())
    assert "weights.safetensors: those of small.tflite; loss" in capsys.readouterr().out


def test_another_content_of_the_file_makes_its_job_due_and_no_other(project: Path) -> None:
    def cards() -> dict[tuple[str, str], str]:
        settings = load()
        jobs = (("pretrain", "small"), ("mismatch", "small"), ("train", "w4a4"), ("evaluate", "w4a4"))
        return {job: card(settings, *job).digest for job in jobs}

    before, stays = cards(), origin(load(), "small")
    Path("small.tflite").write_bytes(phone.file_of(build(DIRECT.model_copy(update={"seed": 3})), 9, 13))
    after = cards()
    assert {job for job in before if before[job] != after[job]} == {("pretrain", "small")}
    assert origin(load(), "small") == stays


def test_absent_weights_and_upsampler_are_on_no_card() -> None:
    content = SETTINGS | {"networks": {"small": BASELINE.model_copy(update={"scale": 2}).model_dump()}}
    content["pretraining"] = TRAINING
    values = card(Suite.model_validate(content), "pretrain", "small").settings["network"]
    assert values == {"backbone": "edsr", "channels": 6, "blocks": 2, "scale": 2, "seed": 1}


def ready_of(source: Ready, content: bytes, *urls: str) -> Ready:
    digest = sha256(content).removeprefix("sha256:")
    return replace(source, network=DIRECT.model_dump(exclude={"seed", "weights"}), sha256=digest, size=None, urls=urls)


@pytest.fixture
def known(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ready]:
    """Puts the file of the project into the catalogue, from these addresses, and its name into the settings."""

    def put(*urls: str) -> Ready:
        entry = ready_of(READY["edsr_f32b5_x2"], Path("small.tflite").read_bytes(), *urls)
        monkeypatch.setitem(READY, "small_x2", entry)
        content = SETTINGS | {"networks": {"small": SETTINGS["networks"]["small"] | {"weights": "small_x2"}}}
        Path("params.yaml").write_text(yaml.safe_dump(content))
        return entry

    return put


def test_found_in_the_users_folder_first(
    known: Callable[..., Ready], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = known()
    (project / "mine too" / "old").mkdir(parents=True)
    (project / "mine too" / "old" / entry.file).write_bytes(b"another file of the name")
    right = project / "mine too" / entry.file
    right.write_bytes(Path("small.tflite").read_bytes())
    monkeypatch.setenv(ready.VARIABLE, str(project / "mine too"))
    assert ready.file_of("small_x2") == right
    right.unlink()
    with pytest.raises(OdmError, match="small_x2: in no folder that was looked at, and nowhere to download from; put"):
        ready.file_of("small_x2")
    monkeypatch.setenv(ready.VARIABLE, str(project / "gone"))
    with pytest.raises(OdmError, match=f"{ready.VARIABLE}: no folder .*gone; correct it"):
        ready.file_of("small_x2")


def test_downloaded_once_and_gone_on_from(known: Callable[..., Ready], server: Server) -> None:  # noqa: F811
    content = Path("small.tflite").read_bytes()
    url, served = server.serve("/small.tflite", content, cuts=iter([3000, 9000]))
    entry = known(f"{server.address}/gone.tflite", url)
    file = ready.file_of("small_x2")
    assert file == ready.DOWNLOADS / entry.file and file.read_bytes() == content
    assert ready.file_of("small_x2") == file
    assert served.asked == [None, "bytes=3000-", "bytes=9000-"]
    file.write_bytes(content[:-1] + b"x")
    with pytest.raises(OdmError, match=rf"{re.escape(str(file))}: its sha256 is not the known one; remove it, .*"):
        ready.file_of("small_x2")


def test_a_mirror_with_another_file_is_refused(known: Callable[..., Ready], server: Server) -> None:  # noqa: F811
    url, _ = server.serve("/small.tflite", b"an error page")
    entry = known(url)
    with pytest.raises(
        OdmError, match=r"small_x2: could not be downloaded from .* \(its sha256 is not the known one\)"
    ):
        ready.file_of("small_x2")
    assert not (ready.DOWNLOADS / entry.file).exists()
    assert not list(ready.DOWNLOADS.glob("*.part*"))


def test_the_catalogues_digest_is_on_the_card_and_score_and_terms_are_said(
    known: Callable[..., Ready],
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    entry = known()
    (project / entry.file).write_bytes(Path("small.tflite").read_bytes())
    monkeypatch.setenv(ready.VARIABLE, str(project))
    settings = load()
    assert card(settings, "pretrain", "small").settings["network"]["sha256"] == entry.sha256
    data.run(settings, "train")
    pretrain.run(settings, "small")
    assert f"those of small_x2 ({entry.trained_by}; Apache-2.0; {entry.score}); loss" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"weights": "edsr_f32b5_x2"},
            "odm: params.yaml: networks.small: channels: 'edsr_f32b5_x2' is of a network with channels 32; "
            "write that here",
        ),
        (
            {"weights": "edsr_f32b5_x2", "channels": 32, "blocks": 5, "upsampler": None},
            "odm: params.yaml: networks.small: upsampler: 'edsr_f32b5_x2' is of a network with upsampler "
            "pixelshuffledirect; write that here",
        ),
        ({"weights": "edsr_f32b6_x2"}, "odm: weights: 'edsr_f32b6_x2' is no file and no ready network; did you mean"),
        ({"weights": "gone.tflite"}, "odm: gone.tflite: no such file; correct `weights`"),
        ({"weights": "gone.pth"}, "odm: gone.pth: no such file; correct `weights`"),
        ({"weights": "~no-one/x.pth"}, "odm: weights: ~no-one/x.pth: there is no home of '~no-one'"),
    ],
)
def test_mistakes_are_one_line(changes: dict, said: str, project: Path) -> None:
    data.run(load(), "train")
    content = SETTINGS | {"networks": {"small": SETTINGS["networks"]["small"] | changes}}
    Path("params.yaml").write_text(yaml.safe_dump(content))
    assert one_line("pretrain", "small").startswith(said)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["edsr_f32b5_x2", "edsr_f64b5_x2", "edsr_baseline_x4_krasserm"])
def test_published_networks_score_what_the_catalogue_says(name: str, odm_images: Path) -> None:
    try:
        file = ready.file_of(name)
    except OdmError:
        pytest.skip(f"{name} lies in no folder of weights here")
    entry = READY[name]
    network = build(Settings(**entry.network))
    assert isinstance(network, Edsr)
    network.take(file)
    found = []
    for image in sorted((odm_images / "Set5" / "HR").iterdir()):
        high = read_image(image)
        high = high[: high.shape[0] // network.scale * network.scale, : high.shape[1] // network.scale * network.scale]
        low = imresize(high, Fraction(1, network.scale))
        found.append(list(score(inference.upscale(network.eval(), low, name), high, network.scale).values()))
    psnr, ssim = np.mean(found, axis=0)
    assert f"Set5 {psnr:.2f} / {ssim:.4f}" in entry.score
