"""Networks in a file of their own: shipped, loaded where there is no suite, and scored anew by `odm verify`."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from test_errors import one_line

from odm import inference, model
from odm.errors import OdmError
from odm.images.decode import read_image
from odm.settings.reading import load
from odm.steps import data, evaluate, mismatch, pretrain, ship, suite, tables, train, upscale, verify

TRAINING = {"steps": 20, "batch": 2, "patch": 12, "rate": 0.002, "schedule": "cosine", "log_every": 10}
SETTINGS = {
    "suite": "small",
    "device": "cpu",
    "images": {"train": ["skimage_train"], "test": ["skimage_test"], "scales": [2]},
    "networks": {"net": {"backbone": "edsr", "channels": 6, "blocks": 2, "scale": 2}},
    "dials": {},
    "pretraining": TRAINING | {"steps": 60},
    "mismatch": {"batches": 2},
    "qat": TRAINING | {"calibration_batches": 2},
    "methods": {"odm": {"kind": "odm", "offsets": {"share": 0.5}}, "daq": {"kind": "daq"}, "ddtb": {"kind": "ddtb"}},
    "runs": {
        f"w4a4_{name}": {"network": "net", "method": name, "weight_bits": 4, "activation_bits": 4}
        for name in ("odm", "daq", "ddtb")
    },
}
NAMES = ("net", *SETTINGS["runs"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite with everything made, each network in a file of its own below `shipped`, and a suite beside it."""
    folder = tmp_path_factory.mktemp("small")
    with chdir(folder):
        Path("suites").mkdir()
        for name in ("small", "other"):
            content = SETTINGS | {"suite": name, "runs": {"w4a4_odm": SETTINGS["runs"]["w4a4_odm"]}}
            Path(f"suites/{name}.yaml").write_text(yaml.safe_dump(SETTINGS if name == "small" else content))
        for each in ("other", "small"):
            suite.run(each)
            settings = load()
            for split in data.SPLITS:
                data.run(settings, split)
            pretrain.run(settings, "net")
            mismatch.run(settings, "net")
            for name in settings.runs:
                train.run(settings, name)
            for name in ("net", *settings.runs):
                evaluate.run(settings, name)
            tables.run(settings)
        for name in NAMES:
            ship.run(load(), name, f"shipped/{name}.safetensors", "CC0")
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(finished, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(model, "SHIPPED", Path("shipped"))
    return tmp_path / "here"


def photograph(path: Path, side: int = 20) -> Path:
    y, x = np.mgrid[:side, :side]
    Image.fromarray(np.stack([x * 9 % 256, y * 7 % 256, (x + y) * 5 % 256], -1).astype(np.uint8)).save(path)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_file_alone_is_the_network(name: str, project: Path, tmp_path: Path) -> None:
    image = read_image(photograph(tmp_path / "photo.png"))
    ours = inference.upscale(inference.load(load(), name, torch.device("cpu")), image)
    moved = tmp_path / "elsewhere.safetensors"
    shutil.copy(f"shipped/{name}.safetensors", moved)
    np.testing.assert_array_equal(inference.upscale(model.load(moved, torch.device("cpu")), image), ours)
    about = model.about(moved)
    assert (about.name, about.licence, about.trained_on) == (name, "CC0", ["skimage_train"])
    assert about.scores["skimage_test"]["psnr"] > 20
    assert (about.method is None) == (name == "net")


def test_equal_networks_are_equal_bytes(project: Path) -> None:
    ship.run(load(), "w4a4_odm", "again/w4a4_odm.safetensors", "CC0")
    assert Path("again/w4a4_odm.safetensors").read_bytes() == Path("shipped/w4a4_odm.safetensors").read_bytes()


def test_upscale_where_there_is_no_suite(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = project / "shipped"
    monkeypatch.setattr(model, "SHIPPED", files)
    (tmp_path / "nowhere").mkdir()
    monkeypatch.chdir(tmp_path / "nowhere")
    photograph(Path("photo.png"))
    monkeypatch.setattr(model, "DEFAULT", "w4a4_odm")
    upscale.run(None, ["photo.png"], "", "")
    assert Image.open("photo_x2_w4a4_odm.png").size == (40, 40)
    upscale.run(None, ["photo.png"], str(files / "net.safetensors"), "out.png")
    assert Image.open("out.png").size == (40, 40)
    with pytest.raises(OdmError, match=r"'w4a4_omd' is no shipped network; did you mean 'w4a4_odm'.*, and there is no"):
        upscale.run(None, ["photo.png"], "w4a4_omd", "")


def test_the_command_takes_a_model_file_anywhere(project: Path, tmp_path: Path) -> None:
    with chdir(tmp_path):
        photograph(Path("photo.png"))
        file = str(project / "shipped" / "w4a4_daq.safetensors")
        command = [sys.executable, "-m", "odm.cli", "upscale", "photo.png", "--with", file]
        subprocess.run(command, check=True, capture_output=True)
        assert Image.open("photo_x2_w4a4_daq.png").size == (40, 40)
        Path("broken.safetensors").write_bytes(Path(file).read_bytes()[:-1])
        for name, said in (("broken", "damaged, or none of `odm ship`"), ("gone", "no such file; `odm ship <run>`")):
            line = one_line("upscale", "photo.png", "--with", f"{name}.safetensors")
            assert line.startswith(f"odm: {name}.safetensors: {said}")


@pytest.mark.parametrize("name", NAMES)
def test_the_page_is_read_by_the_hub_s_own_library(name: str, project: Path) -> None:
    card = ModelCard.load(f"shipped/{name}.md")
    about = model.about(Path(f"shipped/{name}.safetensors"))
    assert card.data.model_name == name and card.data.license == "cc0"
    scored = {(each.dataset_name, each.metric_type): each.metric_value for each in card.data.eval_results}
    assert scored == {(images, key): each for images, found in about.scores.items() for key, each in found.items()}
    assert hashlib.sha256(Path(f"shipped/{name}.safetensors").read_bytes()).hexdigest() in card.text
    assert f"odm upscale photo.png --with {name}.safetensors" in card.text
    assert ("20 steps of 2 patches of 12 x 12" in card.text) == (name != "net")


# The fields of its Model and Resource, what each must be, and those that may be missing.
OPEN_MODEL_DB = {
    "name": re.compile(r".+"),
    "author": re.compile(r"[a-zA-Z0-9]+(-[a-zA-Z0-9]+)*"),
    "license": re.compile(r"[A-Za-z0-9.+-]+"),
    "tags": list,
    "description": re.compile(r"\S(.*\S)?", re.DOTALL),
    "date": re.compile(r"\d{4}-\d\d-\d\d"),
    "architecture": re.compile(r"[a-zA-Z0-9+-]+"),
    "size": list,
    "scale": range(1, 17),
    "inputChannels": range(1, 5),
    "outputChannels": range(1, 5),
    "resources": list,
    "images": list,
}
MAY_BE_MISSING = {
    "trainingIterations": range(1, 10**9),
    "trainingBatchSize": range(1, 10**9),
    "trainingHRSize": range(1, 10**9),
    "dataset": re.compile(r".+"),
}
RESOURCE = {
    "platform": re.compile("pytorch|onnx|ncnn"),
    "type": re.compile("pth|onnx"),
    "size": range(1, 10**9),
    "sha256": re.compile(r"[0-9a-f]{64}"),
    "urls": list,
}


def fits(value: object, wanted: object) -> bool:
    if isinstance(wanted, re.Pattern):
        return isinstance(value, str) and wanted.fullmatch(value) is not None
    return value in wanted if isinstance(wanted, range) else isinstance(value, list)


@pytest.mark.parametrize("name", NAMES)
def test_the_entry_has_the_fields_of_openmodeldb(name: str, project: Path) -> None:
    ship.run(load(), name, f"{name}.safetensors", "CC0", "https://example.org/it")
    entry = json.loads(Path(f"{name}.json").read_text())
    assert entry.keys() - MAY_BE_MISSING.keys() == OPEN_MODEL_DB.keys()
    wanted = OPEN_MODEL_DB | MAY_BE_MISSING
    assert [key for key, value in entry.items() if not fits(value, wanted[key])] == []
    (file,) = entry["resources"]
    assert file.keys() == RESOURCE.keys()
    assert [key for key, value in file.items() if not fits(value, RESOURCE[key])] == []
    assert file["urls"] == ["https://example.org/it"]
    assert file["sha256"] == hashlib.sha256(Path(f"{name}.safetensors").read_bytes()).hexdigest()
    assert ("trainingIterations" in entry) == (name != "net")
    assert (entry["architecture"], entry["size"], entry["scale"]) == ("EDSR", ["6nf", "2nb"], 2)


def test_a_network_that_was_taken_over_says_whose_it_was() -> None:
    assert ship._starts_from("edsr_f32b5_x2") == (
        "weights by the authors of EDSR, on DIV2K, for MLCommons (edsr_f32b5_fp32.tflite, Apache-2.0)"
    )
    assert ship._starts_from("mine.pt") == "the weights mine.pt"
    assert ship._starts_from(None) == ""


def test_ship_wants_scores_of_the_settings_in_force(project: Path) -> None:
    Path("results/small/runs/w4a4_odm/metrics.json").unlink()
    assert "w4a4_odm/metrics.json: no such file" in one_line("ship", "w4a4_odm")
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("kind: daq", "kind: daq\n    deviation_bits: 5"))
    assert "w4a4_daq: scored under other settings than those in force" in one_line("ship", "w4a4_daq")


def test_verify_scores_what_is_shipped_and_renders_what_other_suites_left(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verify.run(load())
    assert "files read, and all agree" in capsys.readouterr().out
    for path in ("weights.safetensors", "history.csv"):  # what git does not bring
        (Path("results/other/runs/w4a4_odm") / path).unlink()
    verify.run(load())


@pytest.mark.parametrize(
    "path",
    [
        "results/small/runs/w4a4_odm/metrics.json",
        "results/small/runs/w4a4_odm/weights.safetensors",
        "results/small/runs/w4a4_odm/history.csv",
        "results/small/networks/net/mismatch.json",
        "results/small/tables.md",
        "results/small/tables.csv",
        "results/small/tables.tex",
        "results/small/paper.csv",
        "results/tables.md",
        "results/other/tables.md",
        "results/other/tables.csv",
        "results/other/runs/w4a4_odm/metrics.json",
        "results/other/networks/net/metrics.json",
        "shipped/net.safetensors",
        "shipped/w4a4_ddtb.safetensors",
    ],
)
def test_one_flipped_byte_is_named(path: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray(Path(path).read_bytes())
    place = len(content) * 2 // 3
    content[place] ^= 1
    Path(path).write_bytes(content)
    with pytest.raises(OdmError, match=f"do not agree: .*{path}"):
        verify.run(load())
    assert any(line.startswith(path) for line in capsys.readouterr().out.splitlines())


def test_a_network_that_scores_otherwise_than_it_says_is_named(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("shipped/w4a4_odm.safetensors")
    about = model.about(path)
    about.scores["skimage_test"]["psnr"] += 0.01
    model.write(path, about, model.load(path, torch.device("cpu")))
    with pytest.raises(OdmError, match=r"1 of \d+ files do not agree: shipped/w4a4_odm\.safetensors"):
        verify.run(load())
    assert "w4a4_odm.safetensors: scores psnr" in capsys.readouterr().out


def test_what_is_shipped_says_what_it_is() -> None:
    """Of the package's own: the default is among them, and each has terms and the scores of a benchmark."""
    networks = model.shipped()
    if not networks:
        pytest.skip("none is shipped yet")
    assert model.DEFAULT in networks
    for name, path in networks.items():
        about = model.about(path)
        assert about.name == name and about.licence.startswith("Apache-2.0")
        assert about.scores.keys() >= {"set5", "set14"}
