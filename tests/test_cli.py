"""The command line: quick to answer, helpful with names, and the way to use what was trained."""

import os
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.main import get_command

from odm import cli, inference
from odm.networks.device import usable_cores
from odm.settings.reading import PARAMS, load
from odm.steps import data, doctor, mismatch, pretrain, train
from odm.upscaling.formats import FORMATS

ROOT = Path(__file__).parents[1]
COMMANDS = get_command(cli.app).commands  # type: ignore[attr-defined]
STEPS = {"data", "pretrain", "dial", "mismatch", "train", "evaluate", "tables", "figures", "report"}
BESIDE = {"suite", "check", "verify", "adopt", "doctor", "upscale", "new", "cards", "needs", "tensorboard"}
DEPLOYED = {"ship", "export", "certify", "info", "bench-inference"}


def odm(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "odm.cli", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str | int | None:
    """What the command line ends with when it is called in this process: a line, or an exit code."""
    monkeypatch.setattr(sys, "argv", ["odm", *arguments])
    with pytest.raises(SystemExit) as ending:
        cli.main()
    return ending.value.code


def imported(*arguments: str, cwd: Path) -> set[str]:
    """The packages that a call of `odm` imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "odm.cli", *arguments], cwd=cwd, capture_output=True, text=True
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    packages = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}
    assert {"typer", "odm"} <= packages, "the list is of the right process"
    return packages


HEAVY = {"torch", "numpy", "pandas", "PIL", "skimage", "scipy", "matplotlib", "safetensors"}


def test_help_is_quick_because_it_imports_little(tmp_path: Path) -> None:
    assert not imported("--help", cwd=tmp_path) & (HEAVY | {"pydantic", "yaml", "rich"})
    assert not imported("train", "--help", cwd=tmp_path) & HEAVY


def test_a_mistake_is_answered_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("suite: 1\n")
    for command in (["check"], ["train", "w4a4_odm"]):
        assert not imported(*command, cwd=tmp_path) & HEAVY


def test_every_step_is_there() -> None:
    assert set(COMMANDS) >= STEPS | BESIDE | DEPLOYED


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(monkeypatch, name, "--help") == 0
    said = capsys.readouterr().out
    assert COMMANDS[name].help.rstrip(".") in " ".join(said.split())
    for parameter in COMMANDS[name].params:
        assert parameter.help or parameter.name == "help", parameter.name


def test_console_script() -> None:
    done = subprocess.run([Path(sys.executable).with_name("odm"), "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    listed = {line.split()[0] for line in done.stdout.split("Commands:")[1].splitlines() if line}
    assert listed == set(COMMANDS)


# Names


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pretrain", "edsr_tin"], "params.yaml: no network is called 'edsr_tin'; did you mean 'edsr_tiny'?"),
        (["mismatch", "other"], "no network or dial is called 'other'; there are: edsr_tiny, edsr_tiny_dial"),
        (["dial", "edsr_tiny_dail"], "params.yaml: no dial is called 'edsr_tiny_dail'; did you mean 'edsr_tiny_dial'?"),
        (["train", "w4a4_omd"], "params.yaml: no run is called 'w4a4_omd'; did you mean 'w4a4_odm'?"),
        (["evaluate", "edsr_tinny"], "no network or run is called 'edsr_tinny'; did you mean 'edsr_tiny'?"),
        (["upscale", "x.png", "--with", "w4a4odm"], "no network or run is called 'w4a4odm'; did you mean 'w4a4_odm'?"),
        (["data", "trian"], "no split 'trian'; there are: train, test"),
        (["suite", "quik"], "suites: no suite is called 'quik'; did you mean 'quick'?"),
    ],
)
def test_unknown_names(arguments: list[str], said: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = main(monkeypatch, *arguments)
    assert isinstance(ended, str)
    assert ended.startswith("odm: ")
    assert ended.endswith(said)
    assert len(ended.splitlines()) == 1


def test_unknown_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(monkeypatch, "trian") == 2
    assert "No such command 'trian'" in capsys.readouterr().err


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The quick suite in force in a folder of its own, which is the working directory."""
    shutil.copytree(ROOT / "suites", tmp_path / "suites")
    monkeypatch.chdir(tmp_path)
    assert main(monkeypatch, "suite", "quick") == 0
    return tmp_path


# Suites


def test_suite_puts_it_in_force(project: Path) -> None:
    first, rest = PARAMS.read_text().split("\n", 1)
    assert rest == (ROOT / "suites" / "quick.yaml").read_text().split("\n", 1)[1]
    assert first.endswith("$schema=params.schema.json"), "editors look for the schema beside params.yaml"
    assert load().suite == "quick"
    assert not Path("params.yaml.bak").exists()


def test_suite_replaces_another_suite(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("suites/other.yaml").write_text(Path("suites/quick.yaml").read_text().replace("suite: quick", "suite: other"))
    capsys.readouterr()
    assert main(monkeypatch, "suite", "other") == 0
    assert load().suite == "other"
    assert capsys.readouterr().out == "suites/other.yaml is in force; `odm check` says what it will do\n"
    assert not Path("params.yaml.bak").exists()


def test_suite_keeps_edits(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    edited = PARAMS.read_text().replace("threads: 1", "threads: 2")
    PARAMS.write_text(edited)
    assert main(monkeypatch, "suite", "quick") == 0
    assert Path("params.yaml.bak").read_text() == edited
    assert load().threads == 1
    assert "params.yaml is in no version of a suite: kept as params.yaml.bak\n" in capsys.readouterr().out


def test_suite_writes_over_no_earlier_backup(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = PARAMS.read_bytes()
    edits = [sound.replace(b"threads: 1", f"threads: {number}".encode()) for number in (2, 3, 3, 4)]
    edits.append(b"\xff\xfe: not even text\n")
    for edited in edits:
        PARAMS.write_bytes(edited)
        assert main(monkeypatch, "suite", "quick") == 0
        assert PARAMS.read_bytes() == sound
    kept = {each.name: each.read_bytes() for each in project.glob("params.yaml.bak*")}
    names = ["params.yaml.bak", "params.yaml.bak2", "params.yaml.bak3", "params.yaml.bak4"]
    assert kept == dict(zip(names, dict.fromkeys(edits), strict=True))


def test_suite_keeps_nothing_that_nobody_edited(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An older version of a suite, as git knows it; another schema line; the line ends of another system."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=b"]
    older = PARAMS.read_text()
    for command in (["init", "-q"], ["add", "suites"], ["commit", "-qm", "older"]):
        subprocess.run([*git, *command], check=True)
    quick = Path("suites/quick.yaml")
    quick.write_text(quick.read_text().replace("steps: 300", "steps: 400"))
    subprocess.run([*git, "commit", "-qam", "newer"], check=True)
    newer = quick.read_text().replace("$schema=../", "$schema=")
    bare = older.split("\n", 1)[1]
    for content in (older, newer, quick.read_text(), bare, f"# yaml-language-server: $schema=elsewhere.json\n{bare}"):
        for ends in ("\n", "\r\n"):
            PARAMS.write_bytes(content.replace("\n", ends).encode())
            assert main(monkeypatch, "suite", "quick") == 0
            assert PARAMS.read_text() == newer
    said = capsys.readouterr().out
    assert "kept" not in said and "edited" not in said
    assert not list(project.glob("params.yaml.bak*"))


def test_suite_with_a_mistake_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = PARAMS.read_text()
    Path("suites/broken.yaml").write_text(before.replace("threads: 1", "threads: 0"))
    assert "suites/broken.yaml: threads: " in str(main(monkeypatch, "suite", "broken"))
    assert PARAMS.read_text() == before


# What will be done, and with what


def test_check(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load()
    assert main(monkeypatch, "check") == 0
    said = capsys.readouterr().out
    assert "train images: skimage_train (5 images)" in said
    assert "test images: skimage_test (3 images)" in said
    jobs = 2 + 3 * len(settings.floats) + 2 * len(settings.runs) + 3
    assert f"{jobs} jobs" in said
    assert f"{settings.pretraining.steps} steps of " in said
    assert f"{len(settings.runs)} runs of {settings.qat.steps} steps" in said
    assert " of training one job after another on " in said
    assert "\na cluster is asked for up to 10 min (" in said
    assert [each.name for each in project.iterdir() if each.name not in ("params.yaml", "suites")] == []


def test_check_refuses_a_device_that_is_missing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PARAMS.write_text(PARAMS.read_text().replace("device: cpu", "device: cuda:99"))
    said = str(main(monkeypatch, "check"))
    assert said.startswith("odm: device: cuda:99 is asked for but ")
    assert said.endswith("; see `odm doctor`")


def test_check_refuses_a_precision_that_the_device_has_not(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PARAMS.write_text(PARAMS.read_text().replace("qat:\n", "qat:\n  precision: tf32\n"))
    said = str(main(monkeypatch, "check"))
    assert said == "odm: precision: tf32 is for GPUs, and the device is a CPU; say `precision: float32`"


def test_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)  # it needs no settings
    assert main(monkeypatch, "doctor") == 0
    said = capsys.readouterr().out
    for package in doctor.PACKAGES:
        assert f"  {package} " in said
    assert "missing" not in said
    assert f"torch {torch.__version__.split('+')[0]}" in said
    for line in ("CPU: ", "threads: ", "GPU"):
        assert line in said


def test_check_and_doctor_agree_on_the_processor(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(monkeypatch, "check") == main(monkeypatch, "doctor") == 0
    said = capsys.readouterr().out
    (line,) = [each.removeprefix("CPU: ") for each in said.splitlines() if each.startswith("CPU: ")]
    assert f"on 1 thread(s) of {line}; less as far as" in said


def test_a_system_that_does_not_tell_usable_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cores() == os.cpu_count()


# What was trained, used


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of 8 channels and a quantized run of it, each after two steps, and a photograph."""
    folder = tmp_path_factory.mktemp("trained")
    training = {"steps": 2, "batch": 2, "patch": 8, "rate": 0.001, "schedule": "cosine"}
    settings = {
        "suite": "tiny",
        "device": "cpu",
        "images": {"train": ["mine"], "test": ["held"], "scales": [3], "folders": {"mine": "mine", "held": "held"}},
        "networks": {"net": {"backbone": "edsr", "channels": 8, "blocks": 1, "scale": 3}},
        "pretraining": training,
        "qat": training | {"calibration_batches": 1},
        "mismatch": {"batches": 1},
        "methods": {"odm": {"kind": "odm"}},
        "runs": {"w2a2": {"network": "net", "method": "odm", "weight_bits": 2, "activation_bits": 2}},
    }
    (folder / PARAMS).write_text(yaml.safe_dump(settings))
    random = np.random.default_rng(1)
    for split in ("mine", "held"):
        (folder / split).mkdir()
        Image.fromarray(random.integers(0, 256, (48, 40, 3), np.uint8)).save(folder / split / "1.png")
    Image.fromarray(random.integers(0, 256, (21, 30, 3), np.uint8)).save(folder / "photo.jpg")
    with chdir(folder):
        loaded = load()
        data.run(loaded, "train")
        pretrain.run(loaded, "net")
        mismatch.run(loaded, "net")
        train.run(loaded, "w2a2")
    return folder


def test_upscale(trained: Path, tmp_path: Path) -> None:
    """Through a real process: a PNG beside the photograph."""
    shutil.copytree(trained, tmp_path / "trained")
    done = odm("upscale", "photo.jpg", "--with", "w2a2", cwd=tmp_path / "trained")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "photo_x3_w2a2.png: w2a2, x3\n"
    with Image.open(tmp_path / "trained" / "photo_x3_w2a2.png") as image:
        assert (image.format, image.size, image.mode) == ("PNG", (90, 63), "RGB")
        written = np.asarray(image)
    with chdir(trained), Image.open("photo.jpg") as photo:
        network = inference.load(load(), "w2a2", torch.device("cpu"))
        assert np.array_equal(written, inference.upscale(network, np.asarray(photo)))


def test_upscale_with_a_network_to_a_place(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "new" / "large.png"
    monkeypatch.chdir(trained)
    Image.new("L", (11, 9), 128).save(tmp_path / "grey.png")
    assert main(monkeypatch, "upscale", str(tmp_path / "grey.png"), "--with", "net", "-o", str(target)) == 0
    assert capsys.readouterr().out == f"{target}: net, x3\n"
    with Image.open(target) as image:
        assert (image.format, image.size) == ("PNG", (33, 27))
    assert [each.name for each in target.parent.iterdir()] == ["large.png"]


def test_check_counts_the_images_of_the_user(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("params.yaml", "mine", "held"):
        (shutil.copytree if (trained / name).is_dir() else shutil.copy)(trained / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for name, size in (("mine", (500, 400)), ("held", (100, 50))):
        Image.new("RGB", size).save(tmp_path / name / "more.png")
    (tmp_path / "held" / "damaged.png").write_text("no image\n")
    assert main(monkeypatch, "check") == 0
    said = capsys.readouterr().out
    assert "train images: mine (2 images in your folder mine)" in said
    assert "test images: held (3 images in your folder held)" in said
    area = 2 * 48 * 40 + 500 * 400 + 100 * 50
    assert f"disk: about {3 * area * (1 + 1 / 9) / 1e6:.1f} MB of images as they are read" in said
    shutil.rmtree("held")
    ending = "images.folders.held: no folder held; correct it, or put the images there"
    assert main(monkeypatch, "check") == f"odm: {ending}"


@pytest.mark.parametrize(
    ("suffix", "format"),
    [(".png", "PNG"), (".PNG", "PNG"), (".jpg", "JPEG"), (".jpeg", "JPEG"), (".tif", "TIFF"), (".bmp", "BMP"),
     (".webp", "WEBP")],
)  # fmt: skip
def test_the_suffix_is_the_format(
    suffix: str, format: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    target = tmp_path / f"large{suffix}"
    assert suffix.lower() in FORMATS
    assert main(monkeypatch, "upscale", "photo.jpg", "--with", "net", "-o", str(target)) == 0
    settings = load()
    with Image.open("photo.jpg") as photo, Image.open(target) as image:
        expected = inference.upscale(inference.load(settings, "net", torch.device("cpu")), np.asarray(photo))
        assert image.format == format
        difference = np.abs(np.asarray(image.convert("RGB")).astype(int) - expected)
    assert difference.max() == 0 or (format == "JPEG" and difference.mean() < 8)


def test_upscale_refuses_to_lose_something(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(trained / PARAMS, tmp_path)
    shutil.copy(trained / "photo.jpg", tmp_path)
    os.symlink("photo.jpg", "link.jpg")
    os.link("photo.jpg", "hard.jpg")
    os.mkfifo("pipe.png")
    before = sorted(os.listdir())
    shutil.copytree(trained / "results", "results")
    known = "no image format has this suffix; there are: .png, .tif, .tiff, .bmp, .webp, .jpg, .jpeg, .avif"
    for name, said in (
        ("photo.jpg", "photo.jpg: is the image itself, which would be lost; name another file"),
        ("link.jpg", "link.jpg: is the image itself, which would be lost; name another file"),
        ("hard.jpg", "hard.jpg: is the image itself, which would be lost; name another file"),
        ("large.gif", f"large.gif: {known}"),
        ("large", f"large: {known}"),
        ("/dev/stdout", f"/dev/stdout: {known}"),
        ("pipe.png", "pipe.png: cannot be written: a device or pipe and no file; name another"),
    ):
        assert main(monkeypatch, "upscale", "photo.jpg", "--with", "net", "-o", name) == f"odm: {said}"
    assert sorted(os.listdir()) == sorted([*before, "results"])
    assert Path("photo.jpg").read_bytes() == (trained / "photo.jpg").read_bytes()


def test_upscale_without_what_it_needs(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    assert "none.png: cannot be read: No such file" in str(main(monkeypatch, "upscale", "none.png", "--with", "net"))
    said = str(main(monkeypatch, "upscale", "photo.jpg", "--with", "net", "-o", "photo.jpg/large.png"))
    assert said == "odm: photo.jpg/large.png: cannot be written: a file is in its folder's place; move it away"
    shutil.copy("photo.jpg", tmp_path)
    shutil.copy(PARAMS, tmp_path)
    monkeypatch.chdir(tmp_path)
    said = str(main(monkeypatch, "upscale", "photo.jpg", "--with", "w2a2"))
    assert said.startswith("odm: results/tiny/runs/w2a2/weights.safetensors: no such file; train it first")


# What nobody thought of


def test_an_error_nobody_thought_of_is_one_line_and_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "run", lambda: {}["a key\nof \udce4 two lines"])
    said = "odm: an error nobody thought of: KeyError: 'a key\\nof \\udce4 two lines'; please report it, with "
    assert main(monkeypatch, "doctor") == f"{said}odm-error.log"
    log = Path("odm-error.log").read_text()
    assert log.startswith("odm doctor\nTraceback (most recent call last):\n")
    assert "KeyError" in log
    # Where it cannot be written the folder for temporary files has it.
    Path("odm-error.log").unlink()
    Path("odm-error.log").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    assert main(monkeypatch, "doctor") == f"{said}{tmp_path}/temporary/odm-error.log"
    assert (tmp_path / "temporary" / "odm-error.log").read_text() == log
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("size", [None, 2**59])
def test_memory_that_runs_out_is_one_line(size: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own error, and the one that torch really raises."""

    def run() -> None:
        if size is None:
            raise MemoryError
        torch.empty(size, dtype=torch.uint8)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "run", run)
    said = str(main(monkeypatch, "doctor"))
    assert said.startswith("odm: out of memory")
    assert said.endswith("take a smaller `batch`, `patch`, network or image, or run fewer jobs side by side")
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_suite_replaces_what_is_no_text(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edited = PARAMS.read_text().encode("utf-16")
    PARAMS.write_bytes(edited)
    assert main(monkeypatch, "suite", "quick") == 0
    assert Path("params.yaml.bak").read_bytes() == edited
    assert load().suite == "quick"


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("train: [skimage_train]", "train: [mine]\n  folders: {mine: ~nosuchuser/x}", "images.folders.mine"),
        ("train: [skimage_train]", "train: [set5]\n  root: ~nosuchuser/x", "images.root"),
    ],
)
def test_a_home_of_nobody(old: str, new: str, key: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PARAMS.write_text(PARAMS.read_text().replace(old, new))
    said = main(monkeypatch, "data", "train")
    assert said == f"odm: {key}: ~nosuchuser/x: there is no home of '~nosuchuser'; write the folder out"
