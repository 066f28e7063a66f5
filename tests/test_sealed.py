"""Content is checked where it is used: whatever is done to a file, it is refused in one line or holds what it held."""

import errno
import os
import random
import re
import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from test_errors import SETTINGS, one_line
from trial import photographs

from odm import card, inference, model, sealed
from odm.card import origin
from odm.errors import OdmError
from odm.images.prepared import Prepared
from odm.networks import weights
from odm.networks.build import build
from odm.networks.device import placed
from odm.reporting import results
from odm.sealed import read_sealed_json, write_sealed_json
from odm.settings.reading import load
from odm.settings.suite import Settings
from odm.steps import data, evaluate, figures, mismatch, pretrain, tables, train, verify
from odm.training import checkpoint

CPU = torch.device("cpu")
NETWORK = Path("results/tiny/networks/net")
RUN = Path("results/tiny/runs/w2a2")
DATA = Path("results/tiny/data")
SAVED = Path("last.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of a few kilobytes in which everything is done."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "params.yaml").write_text(yaml.safe_dump(SETTINGS))
    photographs(folder / "photos", (12, 16), 8)  # coarse, so that each figure finds a region to show
    with chdir(folder):
        settings = load()
        for split in data.SPLITS:
            data.run(settings, split)
        for step in (pretrain, mismatch, evaluate):
            step.run(settings, "net")
        for step in (train, evaluate):
            step.run(settings, "w2a2")
        tables.run(settings)
        figures.run(settings)
        network, optimizer = trained()
        checkpoint.save(SAVED, "identity", 4, network, optimizer, [{"step": 4, "loss": 0.1}])
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A copy of it to damage, and the working directory; less the shipped networks, which are not part of it."""
    monkeypatch.setattr(verify, "shipped", dict)
    shutil.copytree(finished, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return load()


def trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    network = placed(build(load().networks["net"]), CPU)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.linspace(0, 255, 300).view(1, 3, 10, 10)).mean().backward()
    optimizer.step()
    return network, optimizer


# What each kind of file says to those who use it


def stored(name: str) -> Any:
    return {key: value.numpy().tobytes() for key, value in inference.load(load(), name, CPU).state_dict().items()}


def images() -> Any:
    prepared = Prepared(DATA / "test.safetensors")
    pairs = [prepared.pair(index, 2, check=True) for index in range(len(prepared.images))]
    return prepared.images, [(each.shape, each.tobytes()) for pair in pairs for each in pair]


def saved() -> Any:
    """None where the training would start anew, and from what it had."""
    network = placed(build(load().networks["net"]), CPU)
    optimizer = torch.optim.Adam(network.parameters())
    before = {key: value.clone() for key, value in network.state_dict().items()}
    step, rows = checkpoint.load(SAVED, "identity", network, optimizer)
    state = network.state_dict()
    if step == 0:
        assert all(torch.equal(before[key], state[key]) for key in before)
        assert not optimizer.state_dict()["state"]
        return None
    moments = [each.tolist() for of in optimizer.state_dict()["state"].values() for each in of.values()]
    return step, rows, {key: value.numpy().tobytes() for key, value in state.items()}, moments


def measured() -> Any:
    found = results.mismatch(load(), "net")
    return found and {key: layer.model_dump() for key, layer in found.items()}


FILES: dict[Path, Callable[[], Any]] = {
    NETWORK / "weights.safetensors": lambda: stored("net"),
    RUN / "weights.safetensors": lambda: stored("w2a2"),
    DATA / "test.safetensors": images,
    SAVED: saved,
    NETWORK / "mismatch.json": measured,
    RUN / "metrics.json": lambda: results.metrics(load(), "w2a2"),
    RUN / "timing.json": lambda: results.timing(load(), "w2a2"),
    RUN / "history.csv": lambda: results.history(load(), "w2a2").to_csv(),  # type: ignore[union-attr]
}
every_file = pytest.mark.parametrize("path", FILES, ids=str)


def mutated(content: bytes, draw: random.Random) -> bytes:
    """One of the ways in which disks, transfers and hands change a file, half of them within its first part."""
    changed = bytearray(content)
    header = 8 + int.from_bytes(content[:8], "little")
    most = header if header < len(content) and draw.random() < 0.5 else len(content)
    place = draw.randrange(most)
    kind = draw.choice(["bit", "byte", "digit", "cut", "lost", "twice", "swapped", "zeros"])
    if kind == "bit":
        changed[place] ^= 1 << draw.randrange(8)
    elif kind == "byte":
        changed[place] = draw.randrange(256)
    elif kind == "digit":
        digits = [each for each in range(most) if changed[each] in b"0123456789"]
        changed[draw.choice(digits)] = draw.choice(b"0123456789")
    elif kind == "cut":
        del changed[place:]
    elif kind == "lost":
        del changed[place : place + draw.randint(1, 20)]
    elif kind == "twice":
        changed[place:place] = changed[place : place + draw.randint(1, 20)]
    elif kind == "swapped":
        other = draw.randrange(most)
        changed[place], changed[other] = changed[other], changed[place]
    else:
        end = min(len(changed), place + 64)
        changed[place:end] = bytes(end - place)
    return bytes(changed)


def outcome(read: Callable[[], Any]) -> tuple[Any, str]:
    """What was read, or None and what is said of it."""
    try:
        return read(), ""
    except OdmError as error:
        return None, str(error)


@every_file
def test_mutations_are_refused_in_one_line_or_change_nothing(project: Settings, path: Path) -> None:
    content, wanted = path.read_bytes(), FILES[path]()
    draw = random.Random(str(path))
    refused = 0
    for _ in range(150):
        path.write_bytes(mutated(content, draw))
        found, said = outcome(FILES[path])
        assert "\n" not in said
        assert str(path) in said or said == ""
        assert found is None or found == wanted, path.read_bytes()
        refused += found is None
    assert refused > 100


@pytest.mark.parametrize(
    "path", [NETWORK / "weights.safetensors", RUN / "weights.safetensors", DATA / "test.safetensors"]
)
def test_forty_bits_of_forty_are_seen(project: Settings, path: Path) -> None:
    """In the data alone, which any reader would take."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    draw = random.Random(40)
    for _ in range(40):
        changed = bytearray(content)
        changed[draw.randrange(start, len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(OdmError, match=f"{path}: damaged"):
            FILES[path]()


def test_the_shape_of_an_image_is_sealed(project: Settings) -> None:
    """As many pixels with the same digest, but another picture."""
    path = DATA / "test.safetensors"
    content = path.read_bytes()
    assert content.count(b"[96, 128, 3]") == 2
    path.write_bytes(content.replace(b"[96, 128, 3]", b"[128, 96, 3]"))
    with pytest.raises(OdmError, match="damaged"):
        Prepared(path, check=True)


# Who uses them


def flip(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_evaluate_sees_a_test_pixel(project: Settings) -> None:
    flip(DATA / "test.safetensors", -3)
    line = one_line("evaluate", "net")
    assert line == f"odm: {DATA}/test.safetensors: damaged or cut short; remove it and run `odm data test`"


def test_training_sees_a_pixel_of_its_sample(project: Settings) -> None:
    flip(DATA / "train.safetensors", -3)
    shutil.rmtree(NETWORK)
    with pytest.raises(OdmError, match=f"^{DATA}/train.safetensors: damaged or cut short; remove it and run"):
        pretrain.run(project, "net")
    assert not NETWORK.exists()


def test_a_sample_is_what_is_read_first_in_a_drawn_order(project: Settings) -> None:
    path = DATA / "train.safetensors"
    flip(path, -3)  # in the second of two images, reduced
    prepared = Prepared(path)
    seen = 0
    for seed in range(20):
        try:
            prepared.sample(2, seed, most=1)
        except OdmError:
            seen += 1
    assert 0 < seen < 20


def test_weights_without_a_digest_are_not_taken(project: Settings) -> None:
    path = RUN / "weights.safetensors"
    save_file(load_file(path), path, {"settings": origin(project, "w2a2")})
    with pytest.raises(OdmError, match="damaged; remove it and train again"):
        inference.load(project, "w2a2", CPU)


@pytest.mark.parametrize("name", ["net", "w2a2"])
@pytest.mark.parametrize("change", ["renamed", "lost", "more", "shape"])
def test_sealed_weights_of_another_network(project: Settings, name: str, change: str) -> None:
    path = results.folder(project, name) / "weights.safetensors"
    state = weights.load(path, origin(project, name))
    key = "last.weight"
    value = state.pop(key)
    if change != "lost":
        state["other" if change == "renamed" else key] = value[:1].clone() if change == "shape" else value
    if change == "more":
        state["another"] = value.clone()
    sealed.write_tensors(path, state, {"settings": origin(project, name)})
    said = outcome(lambda: evaluate.run(project, name))[1]
    assert re.fullmatch(f"{path}: does not fit the network: [^\n]+; remove it and train again", said)


def test_a_sealed_checkpoint_of_another_network(project: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    metadata, tensors = sealed.read_tensors(SAVED)
    tensors["network.last.weight"] = tensors["network.last.weight"][:1].clone()
    sealed.write_tensors(SAVED, tensors, metadata)
    assert saved() is None
    assert capsys.readouterr().out == f"{SAVED}: of another network; starting anew\n"


def test_training_sees_an_edited_or_foreign_mismatch(project: Settings) -> None:
    path = NETWORK / "mismatch.json"
    before = path.read_text()
    digit = before.index("channel_means") + 60
    place = next(each for each in range(digit, len(before)) if before[each] in "12345678")
    path.write_text(before[:place] + "9" + before[place + 1 :])
    with pytest.raises(OdmError, match=f"{path}: not what was written there.*; run `odm mismatch net` again"):
        train.run(project, "w2a2")
    path.write_text(before)
    write_sealed_json(path, read_sealed_json(path, "") | {"settings": "another"})
    with pytest.raises(OdmError, match=f"{path}: measured under other settings.*; run `odm mismatch net` again"):
        train.run(project, "w2a2")


def test_a_history_without_weights_is_read(project: Settings) -> None:
    """As git brings it."""
    wanted = FILES[RUN / "history.csv"]()
    (RUN / "weights.safetensors").unlink()
    assert FILES[RUN / "history.csv"]() == wanted


def unreadable() -> dict[str, Callable[[Path], None]]:
    """What a system refuses, by what it says."""

    def folder(path: Path) -> None:
        path.mkdir()

    def failing(path: Path) -> None:
        path.symlink_to("/proc/self/mem")  # its first page is not there

    def closed(path: Path) -> None:
        path.touch(0o000)

    ways = {errno.EISDIR: folder}
    if Path("/proc/self/mem").exists():
        ways[errno.EIO] = failing
    if os.geteuid():
        ways[errno.EACCES] = closed
    return {os.strerror(number): way for number, way in ways.items()}


@every_file
@pytest.mark.parametrize("said", unreadable())
def test_what_does_not_open_is_not_called_damaged_or_missing(project: Settings, path: Path, said: str) -> None:
    path.unlink()
    unreadable()[said](path)
    with pytest.raises(OdmError) as error:
        FILES[path]()
    assert str(error.value) == f"{path}: cannot be read: {said}"


# The command


def test_verify(project: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is changed in whichever file, it is named; put back, all agrees again."""
    verify.run(project)
    assert capsys.readouterr().out == "25 files read, and all agree\n"
    draw = random.Random(3)
    files = [each for each in sorted(Path("results").rglob("*")) if each.is_file()]
    assert len(files) == 25
    for path in files:
        content = path.read_bytes()
        last = len(content) - (13 if path.suffix == ".png" else 1)  # the end of a PNG is an empty chunk
        for place in (0, draw.randrange(last), last):
            flip(path, place)
            said = outcome(lambda: verify.run(project))[1] + capsys.readouterr().out
            assert str(path) in said, place
            assert re.search(r"^\d of 25 files do not agree: ", said)
            path.write_bytes(content)
    verify.run(project)
    assert capsys.readouterr().out == "25 files read, and all agree\n"


def test_verify_of_many_at_once(project: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """The tables too, which nothing can be held to while the metrics are damaged."""
    files = [Path("results/tables.md"), *(project.results / name for name in ("tables.csv", "tables.tex"))]
    files += [folder / name for folder in (NETWORK, RUN) for name in ("weights.safetensors", "metrics.json")]
    for path in files:
        flip(path, 100)
    assert outcome(lambda: verify.run(project))[1]
    said = capsys.readouterr().out.splitlines()
    assert [path for path in files if not any(line.startswith(f"{path}: ") for line in said)] == []


def test_verify_of_what_is_not_there(project: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(DATA)
    verify.run(project)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"not there: {DATA}/train.safetensors and 1 more"
    assert said[1] == "23 files read, and all agree"
    shutil.rmtree("results")
    with pytest.raises(OdmError, match="results/tiny: nothing is there yet; run `snakemake --cores 2 all`"):
        verify.run(project)


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (("channels: 8", "channels: 12"), [NETWORK / "weights.safetensors", RUN / "metrics.json"]),
        (("weight_bits: 2", "weight_bits: 3"), [RUN / "weights.safetensors", RUN / "metrics.json"]),
        (("batches: 1", "batches: 2"), [NETWORK / "mismatch.json", RUN / "weights.safetensors"]),
        (("- mine", "- mine\n  - skimage_train"), [DATA / "train.safetensors", NETWORK / "weights.safetensors"]),
    ],
)
def test_verify_by_the_settings(
    project: Settings, edit: tuple[str, str], named: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    text = Path("params.yaml").read_text()
    assert text.count(edit[0]) >= 1
    Path("params.yaml").write_text(text.replace(*edit))
    with pytest.raises(OdmError):
        verify.run(load())
    said = capsys.readouterr().out.splitlines()
    for path in named:
        assert any(line.startswith(f"{path}: ") for line in said), said
    assert not any(line.startswith(f"{DATA}/test.safetensors") for line in said)


def test_verify_by_the_card(project: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a file that says nothing of settings itself, by what its job was last done under."""
    for job in card.jobs(project):
        card.record(project, *job, card.card(project, *job))
    verify.run(project)
    shutil.copytree("photos/held", "photos/other")
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("held: photos/held", "held: photos/other"))
    capsys.readouterr()
    line = one_line("verify")
    assert line == f"odm: 1 of {25 + len(model.shipped())} files do not agree: {DATA}/test.safetensors"


def test_a_card_is_not_changed_by_the_order_of_keys(project: Settings) -> None:
    """A folder of the user's is written down with its keys sorted."""
    for job in card.jobs(project):
        made = card.card(project, *job)
        card.record(project, *job, made)
        assert made.changes(card.recorded(project, *job) or made) == ([], [])


def test_a_damaged_record_is_one_line(project: Settings) -> None:
    card.record(project, "tables", "", card.card(project, "tables"))
    (path,) = Path("logs").rglob("*.card.json")
    for content in ('{"settings": {}}', "[]", "[[[["):
        path.write_text(content)
        with pytest.raises(OdmError, match=f"^{path}: not a (card|JSON file); remove it"):
            card.recorded(project, "tables", "")
