"""Damage, full disks and closed folders, met by real processes: one line, exit code 1, nothing half-written or lost."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import yaml
from trial import photographs

from odm.errors import OdmError
from odm.files import read_json, whole, write_json, write_text
from odm.networks import weights
from odm.sealed import write_tensors
from odm.settings.reading import load
from odm.steps import data, mismatch, pretrain, train

NETWORK = Path("results/tiny/networks/net")
RUN = Path("results/tiny/runs/w2a2")
CHECKPOINT = Path("checkpoints/tiny/networks/net/last.safetensors")
TRAINING = {"steps": 4, "batch": 2, "patch": 8, "rate": 0.001, "schedule": "cosine", "log_every": 2}
SETTINGS = {
    "suite": "tiny",
    "device": "cpu",
    "images": {
        "train": ["mine"],
        "test": ["held"],
        "scales": [2],
        "folders": {"mine": "photos/mine", "held": "photos/held"},
    },
    "networks": {"net": {"backbone": "edsr", "channels": 8, "blocks": 1, "scale": 2}},
    "pretraining": TRAINING,
    "qat": TRAINING | {"calibration_batches": 1},
    "mismatch": {"batches": 1},
    "methods": {"odm": {"kind": "odm"}},
    "runs": {"w2a2": {"network": "net", "method": "odm", "weight_bits": 2, "activation_bits": 2}},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of a few kilobytes in which everything up to training is done."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "params.yaml").write_text(yaml.safe_dump(SETTINGS))
    photographs(folder / "photos", (40, 32))
    with chdir(folder):
        settings = load()
        for split in data.SPLITS:
            data.run(settings, split)
        for step in (pretrain, mismatch):
            step.run(settings, "net")
        train.run(settings, "w2a2")
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to damage, and the working directory."""
    shutil.copytree(finished, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, and its bytes; but for what is noted of jobs while they run."""
    files = [each for each in folder.rglob("*") if each.is_file() and each.relative_to(folder).parts[0] != "logs"]
    return {str(each.relative_to(folder)): each.read_bytes() for each in files}


def one_line(*arguments: str, before: tuple[str, ...] = ()) -> str:
    """What `odm` says as it fails: one line and nothing else on stderr, exit code 1."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "odm.cli", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 1, done
    assert done.stderr.startswith("odm: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stdout
    return done.stderr.rstrip("\n")


def cut(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


# Images


def half_an_image() -> None:
    cut(Path("photos/held/2.png"))


def no_image() -> None:
    Path("photos/held/2.png").write_text("not an image\n")


def empty_folder() -> None:
    for file in Path("photos/held").iterdir():
        file.unlink()


def missing_folder() -> None:
    shutil.rmtree("photos/held")


def trained_on() -> None:
    shutil.copy("photos/held/2.png", "photos/mine/other.png")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (half_an_image, "photos/held/2.png: cannot be read: damaged PNG; replace it"),
        (no_image, "photos/held/2.png: cannot be read: not an image, or of a format that is not read; replace it"),
        (empty_folder, "images.folders.held: no images in photos/held"),
        (missing_folder, "images.folders.held: no folder photos/held; correct it"),
        (trained_on, "images.test: '2' of 'held' is also trained on, as 'other' of 'mine'"),
    ],
)
def test_damaged_images(project: Path, damage: Callable[[], None], said: str) -> None:
    damage()
    before = tree(project)
    assert one_line("data", "test").startswith(f"odm: {said}")
    assert tree(project) == before


# What steps hand to each other


def test_damaged_prepared_images(project: Path) -> None:
    cut(Path("results/tiny/data/train.safetensors"))
    before = tree(project)
    line = one_line("pretrain", "net")
    assert line == "odm: results/tiny/data/train.safetensors: damaged or cut short; remove it and run `odm data train`"
    assert tree(project) == before


def test_damaged_weights(project: Path) -> None:
    cut(RUN / "weights.safetensors")
    before = tree(project)
    assert one_line("evaluate", "w2a2") == f"odm: {RUN}/weights.safetensors: damaged; remove it and train again"
    assert tree(project) == before


@pytest.mark.parametrize("edit", [("channels: 8", "channels: 12"), ("weight_bits: 2", "weight_bits: 3")])
def test_weights_of_other_settings(project: Path, edit: tuple[str, str]) -> None:
    """The second would load without complaint: the shapes are the same."""
    text = Path("params.yaml").read_text()
    assert edit[0] in text
    Path("params.yaml").write_text(text.replace(*edit))
    before = tree(project)
    line = one_line("evaluate", "w2a2")
    assert line == f"odm: {RUN}/weights.safetensors: trained under other settings than those in force; train it again"
    assert tree(project) == before


@pytest.mark.parametrize("share", [0, 0.0005, 0.01, 0.5, 0.9999])
def test_weights_cut_anywhere(project: Path, share: float) -> None:
    cut(RUN / "weights.safetensors", share)
    with pytest.raises(OdmError, match="damaged; remove it and train again"):
        weights.load(RUN / "weights.safetensors", "digest")


def test_weights_that_cannot_be_read_are_not_called_damaged(project: Path) -> None:
    with pytest.raises(OdmError, match="results: cannot be read"):
        weights.load(Path("results"), "digest")
    with pytest.raises(OdmError, match="no such file; train it first"):
        weights.load(Path("results/none"), "digest")


def test_damaged_json(project: Path) -> None:
    cut(NETWORK / "mismatch.json")
    with pytest.raises(OdmError, match=r"mismatch\.json: not a JSON file; remove it and run"):
        read_json(NETWORK / "mismatch.json")


def test_training_asks_for_measurements_where_it_goes_by_them(project: Path) -> None:
    """`plain` does not, nor does ODM without offsets, or without activations that are quantized."""
    text = Path("params.yaml").read_text()
    content = yaml.safe_load(text)
    content["methods"] |= {"plain": {"kind": "plain"}, "none": {"kind": "odm", "offsets": {"kind": "none"}}}
    sound = content["runs"]["w2a2"]
    content["runs"] = {
        "with_offsets": sound,
        "plain": sound | {"method": "plain"},
        "none": sound | {"method": "none"},
        "weights": sound | {"activation_bits": 32},
    }
    Path("params.yaml").write_text(yaml.safe_dump(content))
    for run in ("plain", "none", "weights", "with_offsets"):
        train.run(load(), run)
    made = {run: tree(Path("results/tiny/runs") / run) for run in content["runs"]}
    (NETWORK / "mismatch.json").unlink()
    for run in ("plain", "none", "weights"):
        shutil.rmtree(Path("results/tiny/runs") / run)
        train.run(load(), run)
        assert tree(Path("results/tiny/runs") / run) == made[run]
    with pytest.raises(OdmError, match=r"mismatch\.json: no such file; run the step that writes it"):
        train.run(load(), "with_offsets")


# Training that is stopped at its very end: the work lies in the checkpoint


@pytest.fixture
def stopped(project: Path) -> Path:
    """The project after a pretraining that could not put its weights where a file stands in the folder's place."""
    shutil.rmtree(NETWORK)
    NETWORK.write_text("in the way\n")
    line = one_line("pretrain", "net")
    assert line.startswith(f"odm: {NETWORK}/weights.safetensors: cannot be written: ")
    assert NETWORK.read_text() == "in the way\n"
    NETWORK.unlink()
    return project


def test_checkpoints(stopped: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kept where the weights could not be written, gone on from; a damaged or foreign one is named, not used."""
    saved = CHECKPOINT.read_bytes()
    wanted = tree(finished / NETWORK)

    def again() -> str:
        shutil.rmtree(NETWORK, ignore_errors=True)
        pretrain.run(load(), "net")
        assert not CHECKPOINT.exists()
        return capsys.readouterr().out

    assert "going on from step 4" in again()
    assert tree(NETWORK) == {key: wanted[key] for key in ("weights.safetensors", "history.csv")}
    for length in (0, 5, 200, len(saved) // 2, len(saved) - 1):
        CHECKPOINT.parent.mkdir(parents=True)
        CHECKPOINT.write_bytes(saved[:length])
        assert f"{CHECKPOINT}: damaged; starting anew\nstep 2/4" in again()
        assert tree(NETWORK) == {key: wanted[key] for key in ("weights.safetensors", "history.csv")}
    CHECKPOINT.parent.mkdir(parents=True)
    CHECKPOINT.write_bytes(saved)
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("backbone: edsr", "backbone: edsr\n    seed: 2"))
    assert f"{CHECKPOINT}: of other settings or inputs; starting anew\nstep 2/4" in again()
    assert tree(NETWORK)["weights.safetensors"] != wanted["weights.safetensors"]


# Disks


@pytest.fixture(scope="module")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """How a process gets mounts of its own, which end with it: as root, or as any user where that is permitted."""
    said, place = "no program `unshare`", str(tmp_path_factory.mktemp("disk"))
    for command in (("unshare", "-rm"), ("unshare", "-m")):
        try:
            done = subprocess.run([*command, "mount", "-t", "tmpfs", "none", place], capture_output=True, text=True)
        except FileNotFoundError:
            break
        if done.returncode == 0:
            return command
        said = done.stderr.strip()
    pytest.skip(f"mounting is not permitted: {said}")


def on_disk(namespace: tuple[str, ...], folder: str, size: str, and_then: str = "true") -> tuple[str, ...]:
    """What to put before a command to have `folder` on a disk of that size; `left` is what lies on it at the end."""
    script = f"""
        cp -r {folder} was && mount -t tmpfs -o size={size} none {folder} && cp -r was/. {folder} || exit 99
        {and_then} 2> /dev/null
        "$@"
        code=$?
        cp -r {folder} left
        exit $code"""
    return *namespace, "sh", "-c", script, "sh"


def test_full_disk_for_images(project: Path, namespace: tuple[str, ...]) -> None:
    shutil.rmtree("results")
    Path("results/tiny").mkdir(parents=True)
    line = one_line("data", "test", before=on_disk(namespace, "results", "8k"))
    assert line == "odm: results/tiny/data/test.safetensors: cannot be written: No space left on device"
    assert tree(Path("left")) == tree(Path("results")) == {}


def test_full_disk_for_weights(project: Path, namespace: tuple[str, ...]) -> None:
    """The weights that were there stay, and the new ones lie in the checkpoint."""
    before = tree(Path("results"))
    line = one_line("train", "w2a2", before=on_disk(namespace, "results", "100k", "cat /dev/zero > results/filler"))
    assert line == f"odm: {RUN}/weights.safetensors: cannot be written: No space left on device"
    left = tree(Path("left"))
    del left["filler"]
    assert left == before
    assert Path("checkpoints/tiny/runs/w2a2/last.safetensors").exists()


def test_full_disk_for_checkpoints(
    project: Path, namespace: tuple[str, ...], finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It holds one checkpoint but not two: the first stays whole, and is gone on from once there is room."""
    shutil.rmtree(NETWORK)
    before = tree(Path("results"))
    Path("checkpoints").mkdir(exist_ok=True)
    line = one_line("pretrain", "net", before=on_disk(namespace, "checkpoints", "96k"))
    assert line == f"odm: {CHECKPOINT}: cannot be written: No space left on device"
    assert tree(Path("results")) == before
    assert list(tree(Path("left"))) == [str(CHECKPOINT.relative_to("checkpoints"))]
    shutil.rmtree("checkpoints")
    Path("left").rename("checkpoints")
    pretrain.run(load(), "net")
    assert "going on from step 2" in capsys.readouterr().out
    for name in ("weights.safetensors", "history.csv"):
        assert (NETWORK / name).read_bytes() == (finished / NETWORK / name).read_bytes()


def test_read_only_disk(project: Path, namespace: tuple[str, ...]) -> None:
    before = tree(Path("results"))
    disk = on_disk(namespace, "results", "1m", "mount -o remount,ro results")
    line = one_line("data", "test", before=disk)
    assert line == "odm: results/tiny/data/test.safetensors: cannot be written: Read-only file system"
    assert tree(Path("left")) == before


def test_limit_on_the_size_of_files(project: Path) -> None:
    """A write that breaks off half-way, where nothing may be mounted."""
    before = tree(project)
    line = one_line("data", "test", before=("sh", "-c", 'ulimit -f 4; exec "$@"', "sh"))
    assert line == "odm: results/tiny/data/test.safetensors: cannot be written: File too large"
    assert tree(project) == before


@pytest.mark.parametrize("place", ["results", "results/tiny", "results/tiny/data"])
def test_file_in_the_place_of_results(project: Path, place: str) -> None:
    shutil.rmtree(place)
    Path(place).write_text("in the way\n")
    before = tree(project)
    line = one_line("data", "test")
    place_taken = "a file is in its folder's place; move it away"
    assert line == f"odm: results/tiny/data/test.safetensors: cannot be written: {place_taken}"
    assert tree(project) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_closed_folder(project: Path) -> None:
    folder = Path("results/tiny/data")
    before = tree(project)
    folder.chmod(0o500)
    try:
        line = one_line("data", "test")
        assert line == f"odm: {folder}/test.safetensors: cannot be written: Permission denied"
        assert tree(project) == before
    finally:
        folder.chmod(0o700)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [["--help"], ["data", "test"]])
def test_full_disk_for_the_log(project: Path, arguments: list[str]) -> None:
    line = one_line(*arguments, before=("sh", "-c", 'exec "$@" > /dev/full', "sh"))
    assert line == "odm: output: No space left on device"


# Whole or not there


def tensors(path: Path, content: Any) -> None:
    write_tensors(path, content, {"settings": "digest"})


@pytest.mark.parametrize("write", [write_text, write_json, tensors])
def test_a_file_is_never_half_there(tmp_path: Path, write: Callable[[Path, object], None]) -> None:
    torch = pytest.importorskip("torch")
    content = {write_text: "text", write_json: [1], tensors: {"a": torch.ones(3)}}[write]
    path = tmp_path / "new" / "file"
    write(path, content)
    first = path.read_bytes()
    write(path, content)
    assert tree(tmp_path) == {"new/file": first}
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask, "others may read what the user lets them read"
    with pytest.raises(OdmError, match="file/below: cannot be written: "):
        write(path / "below", content)
    with pytest.raises(OdmError, match="new: cannot be written: Is a directory"):
        write(path.parent, content)
    assert tree(tmp_path) == {"new/file": first}


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def interrupted() -> None:
        with whole(path) as beside:
            beside.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert tree(tmp_path) == {"file": b"old"}


# What stands where a file is to be


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    """Data that a user has put on another disk: it is replaced there, and the link is not."""
    (tmp_path / "here").mkdir()
    (tmp_path / "disk").mkdir()
    target = tmp_path / "disk" / "data"
    target.write_text("old")
    link, chain = tmp_path / "here" / "data", tmp_path / "here" / "chain"
    link.symlink_to(Path("..") / "disk" / "data")
    chain.symlink_to("data")
    for path, text in ((link, "new"), (chain, "newer")):
        with whole(path) as beside:
            assert beside.parent == target.parent, "renaming goes no further than a disk"
            beside.write_text(text)
        assert target.read_text() == text
    dangling = tmp_path / "here" / "dangling"
    dangling.symlink_to(tmp_path / "disk" / "other")
    write_text(dangling, "made")
    assert tree(tmp_path / "disk") == {"data": b"newer", "other": b"made"}
    assert link.is_symlink() and chain.is_symlink() and dangling.is_symlink()
    dangling.unlink()
    dangling.symlink_to(tmp_path / "unmounted" / "other")
    with pytest.raises(
        OdmError, match=r"dangling: cannot be written: it is a link to .*/unmounted/other, whose folder"
    ):
        write_text(dangling, "lost")
    dangling.unlink()
    dangling.symlink_to(dangling)
    with pytest.raises(OdmError, match="dangling: cannot be written: Too many levels of symbolic links"):
        write_text(dangling, "lost")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    before = sorted(os.listdir(tmp_path))
    for path in (pipe, link):
        with pytest.raises(
            OdmError, match=f"{path.name}: cannot be written: a device or pipe and no file; name another"
        ):
            write_text(path, "text")
    with pytest.raises(OdmError, match="a device or pipe and no file"):
        write_text(Path(os.devnull), "text")
    assert Path(os.devnull).is_char_device()
    assert sorted(os.listdir(tmp_path)) == before and pipe.is_fifo()


@pytest.mark.parametrize("length", [1, 200, 249, 250, 251, 255])
def test_long_names(tmp_path: Path, length: int) -> None:
    for letter in ("a", "é"):
        path = tmp_path / (letter * (length // len(letter.encode())))
        if path != tmp_path:
            write_text(path, "text")
            write_text(path, "text again")
            assert tree(tmp_path) == {path.name: b"text again"}
            path.unlink()


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(OdmError, match="cannot be written: File name too long"):
        write_text(tmp_path / ("a" * 256), "text")


def test_nothing_is_synced_that_is_open_for_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows refuses that."""
    import fcntl

    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE))
    write_text(tmp_path / "file", "text")
    assert synced == [os.O_RDWR]
