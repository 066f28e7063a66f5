"""An edit, and exactly the jobs that it makes due: in throw-away clones, in both engines."""

import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_reproduction import Clone, _said, jobs

pytestmark = pytest.mark.slow

SUITE = """\
suite: due
device: cpu
threads: 1
images:
  train: [skimage_train, ours]
  test: [skimage_test, theirs]
  scales: [2]
  folders: {mine: mine, yours: yours, ours: photographs/ours, theirs: photographs/theirs}
networks:
  tiny: {backbone: edsr, channels: 4, blocks: 2, scale: 2}
dials:
  turned: {network: tiny, strength: 1.0, kind: scale, seed: 1}
pretraining: {steps: 4, batch: 2, patch: 8, rate: 0.001, schedule: cosine, log_every: 2}
mismatch: {batches: 2}
qat: {steps: 3, batch: 2, patch: 8, rate: 0.0005, schedule: cosine, log_every: 2, calibration_batches: 2}
methods:
  plain: {kind: plain}
  odm: {kind: odm}
  pams: {kind: pams, calibration_steps: 1}
  pams_told: {kind: pams, calibration_steps: 1, distillation: 500.0}
runs:
  plain: {network: tiny, method: plain, weight_bits: 2, activation_bits: 2}
  odm: {network: turned, method: odm, weight_bits: 2, activation_bits: 2}
  pams: {network: tiny, method: pams, weight_bits: 2, activation_bits: 2}
  pams_told: {network: tiny, method: pams_told, weight_bits: 2, activation_bits: 2}
"""
RUNS = ("plain", "odm", "pams", "pams_told")
FLOATS = ("tiny", "turned")
REPORT = {"tables", "figures", "report"}


def of(*steps_and_names: tuple[str, Iterable[str]]) -> set[str]:
    return {f"{step} {name}" for step, names in steps_and_names for name in names}


def runs(*names: str) -> set[str]:
    return of(("train", names), ("evaluate", names)) | REPORT


SCORES = of(("evaluate", (*FLOATS, *RUNS))) | REPORT
TRAINED = SCORES | of(("pretrain", ["tiny"]), ("dial", ["turned"]), ("mismatch", FLOATS), ("train", RUNS))

Edit = Callable[[Path], None]


def code(*names: str) -> Edit:
    """Something more to compute, in source files."""

    def edit(folder: Path) -> None:
        for name in names:
            path = folder / "odm" / name
            path.write_text(path.read_text() + "\n\nMORE = 1\n")

    return edit


def text(name: str, before: str, after: str) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / name
        content = path.read_text()
        assert before in content, f"{name} has no {before!r}"
        path.write_text(content.replace(before, after))

    return edit


def new(**files: str) -> Edit:
    """Files by path, in which `__` stands for a slash."""

    def edit(folder: Path) -> None:
        for name, content in files.items():
            path = folder / (name.replace("__", "/") + (".yaml" if name.startswith("suites") else ".py"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    return edit


def all_of(*edits: Edit) -> Edit:
    def edit(folder: Path) -> None:
        for each in edits:
            each(folder)

    return edit


def photograph(name: str, seed: int = 0) -> Edit:
    """An image in a folder of the user's own."""

    def edit(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (32, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)

    return edit


def removed(name: str) -> Edit:
    return lambda folder: (folder / name).unlink()


def touched(folder: Path) -> None:
    for path in (folder / "photographs").rglob("*.png"):
        path.touch()


def comments(folder: Path) -> None:
    """Everywhere: a comment at the head and a docstring that reads otherwise."""
    for path in (folder / "odm").rglob("*.py"):
        reworded = re.sub(r'"""(\w)', r'"""In other words: \1', path.read_text())
        path.write_text(f"# A comment.\n{reworded}\n\n# End.\n")


def messages(folder: Path) -> None:
    """Everywhere: what an error, or a step that is done, says."""
    for path in (folder / "odm").rglob("*.py"):
        path.write_text(re.sub(r'((?:OdmError|print)\(\s*f?")', r"\1So: ", path.read_text()))


SETTINGS_OF_A_KIND = """
from typing import Literal

from odm.{room}.settings import {base}


class New({base}):
    {tag}: Literal["new"]
"""
CLASS = "from odm.{module} import {base}\n\n\nclass New({base}):\n    pass\n"
EDITS: dict[str, tuple[Edit, set[str]]] = {
    "a new method": (
        new(
            odm__methods__new__settings=SETTINGS_OF_A_KIND.format(room="methods", base="MethodSettings", tag="kind"),
            odm__methods__new__method=CLASS.format(module="methods.method", base="Method"),
        ),
        set(),
    ),
    "a new backbone": (
        new(
            odm__networks__new__settings=SETTINGS_OF_A_KIND.format(
                room="networks", base="NetworkSettings", tag="backbone"
            ),
            odm__networks__new__network=CLASS.format(module="networks.backbone", base="Backbone"),
        ),
        set(),
    ),
    "a new suite": (new(suites__new=SUITE.replace("suite: due", "suite: new")), set()),
    "a new command": (all_of(new(odm__steps__new="def run(settings):\n    print(1)\n"), code("cli.py")), set()),
    "a new figure": (
        all_of(
            new(odm__reporting__new="def draw(suite):\n    return None\n"),
            text("odm/steps/figures.py", "import agreement,", "import new, agreement,"),
        ),
        {"figures"},
    ),
    "methods/pams": (code("methods/pams/method.py"), runs("pams", "pams_told")),
    "methods/pams, its quantizer": (code("methods/pams/quantizer.py"), runs("pams", "pams_told")),
    "a method that no run uses": (code("methods/daq/method.py", "methods/daq/quantizer.py"), set()),
    "a backbone that no network uses": (code("networks/rdn/network.py"), set()),
    "the quantizer": (code("quantization/quantizer.py"), runs("plain", "odm")),
    "offsets": (code("quantization/offsets.py"), runs("odm")),
    "the loop": (code("training/loop.py"), TRAINED),
    "the backbone": (code("networks/edsr/network.py"), TRAINED),
    "how images are shrunk": (code("images/imresize.py"), TRAINED | of(("data", ("train", "test")))),
    "reporting": (code("reporting/results.py"), REPORT),
    "reporting, one table": (code("reporting/markdown.py"), {"tables"}),
    "published numbers": (text("odm/reporting/published.csv", "\n", "\n\n"), {"tables", "report"}),
    # Whose words are none of the job's code: what a step refuses, fetches or shows.
    "what gathers and renders": (
        code(
            *("settings/words.py", "settings/reading.py", "settings/suite.py", "methods/pams/settings.py", "cli.py"),
            *(
                "steps/check.py",
                "steps/doctor.py",
                "training/progress.py",
                "files.py",
                "errors.py",
                "card.py",
                "sealed.py",
            ),
            *("images/catalogue.py", "images/download.py"),
        ),
        set(),
    ),
    "a default": (
        text("odm/methods/settings.py", "Field(ge=0)] = 1000.0", "Field(ge=0)] = 900.0"),
        runs("pams"),
    ),
    "a default of the measurement": (
        text("odm/settings/training.py", "percentile: Percentile = 99.0", "percentile: Percentile = 98.0"),
        of(("mismatch", FLOATS)) | runs(*RUNS),
    ),
    "a default that a cosine never asks for": (
        text("odm/settings/training.py", "halve_every: Positive = 15000", "halve_every: Positive = 14000"),
        set(),
    ),
    "a test set more": (
        text("params.yaml", "test: [skimage_test, theirs]", "test: [skimage_test, theirs, mine]"),
        SCORES | of(("data", ["test"])),
    ),
    "another test set": (
        text("params.yaml", "test: [skimage_test, theirs]", "test: [mine]"),
        SCORES | of(("data", ["test"])),
    ),
    "a training set more": (
        text("params.yaml", "train: [skimage_train, ours]", "train: [skimage_train, ours, mine]"),
        TRAINED | of(("data", ["train"])),
    ),
    "an image added to a training set": (
        photograph("photographs/ours/more.png", seed=9),
        TRAINED | of(("data", ["train"])),
    ),
    "an image of a training set changed": (
        photograph("photographs/ours/a.png", seed=9),
        TRAINED | of(("data", ["train"])),
    ),
    "an image removed from a training set": (removed("photographs/ours/b.png"), TRAINED | of(("data", ["train"]))),
    "an image added to a test set": (photograph("photographs/theirs/more.png"), SCORES | of(("data", ["test"]))),
    "an image of a test set changed": (photograph("photographs/theirs/a.png"), SCORES | of(("data", ["test"]))),
    "a folder of a test set that is gone": (
        lambda folder: (folder / "photographs/theirs").rename(folder / "photographs/away"),
        SCORES | of(("data", ["test"])),
    ),
    "images that are touched": (touched, set()),
    "a folder that no split uses": (text("params.yaml", "yours: yours", "yours: theirs"), set()),
    "a run's seed": (text("params.yaml", "method: odm, weight", "seed: 2, method: odm, weight"), runs("odm")),
    "the name of a method": (
        all_of(
            text("params.yaml", "  pams_told: {kind", "  told: {kind"),
            text("params.yaml", "method: pams_told,", "method: told,"),
        ),
        of(("evaluate", ["pams_told"])) | REPORT,
    ),
    "permission to use a CPU": (text("params.yaml", "threads: 1", "threads: 1\nallow_cpu: true"), set()),
    "comments and docstrings": (comments, set()),
    "what errors and steps say": (messages, set()),
}


# A dry run of DVC names what has changed itself, and none of what follows from it.
DUE_IN_DVC = """\
import networkx
from dvc.repo import Repo

with Repo() as repo:
    changed, graph = repo.status().keys() - {"cards"}, repo.index.graph
stages = {stage for stage in graph if stage.addressing in changed}
for stage in stages.union(*(networkx.ancestors(graph, stage) for stage in stages)):
    print(stage.cmd.removeprefix("odm "))
"""


class Engines:
    """A finished clone in which both engines have nothing to do, and the folder as it was."""

    def __init__(self, folder: Path) -> None:
        self.clone = Clone(folder, SUITE)
        for seed, name in enumerate(("ours/a", "ours/b", "theirs/a", "theirs/b"), start=1):
            photograph(f"photographs/{name}.png", seed)(folder)
        self.clone.snakemake()
        assert "DVC has taken over" in self.clone.adopt()
        assert self.due() == (set(), set())
        self.kept = {path: path.read_bytes() for path in self.sources()}

    def sources(self) -> list[Path]:
        folder = self.clone.folder
        photographs = (folder / "photographs").rglob("*")
        files = [*(folder / "odm").rglob("*"), *photographs, *(folder / "suites").iterdir(), folder / "params.yaml"]
        return [path for path in files if path.is_file() and "__pycache__" not in path.parts]

    def due(self) -> tuple[set[str], set[str]]:
        """By Snakemake and by DVC, whose cheap stage of cards has run."""
        return jobs(self.said("snakemake", "--dry-run")), self.due_in_dvc()

    def due_in_dvc(self) -> set[str]:
        self.said("dvc", "repro", "cards")
        return set(_said([sys.executable, "-c", DUE_IN_DVC], self.clone.folder).splitlines())

    def said(self, *command: str) -> str:
        return _said([sys.executable, "-m", *command], self.clone.folder)

    def copy(self, name: str) -> Clone:
        """A clone in the same state."""
        folder = self.clone.folder.with_name(name)
        shutil.copytree(self.clone.folder, folder)  # with the files' times, which Snakemake goes by
        return Clone.of(folder)

    def put_back(self) -> None:
        for path in set(self.sources()) - self.kept.keys():
            path.unlink()
        for path, content in self.kept.items():
            path.parent.mkdir(exist_ok=True)
            if not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return Engines(tmp_path_factory.mktemp("due") / "clone")


@pytest.fixture
def edited(engines: Engines) -> Iterator[Engines]:
    yield engines
    engines.put_back()


@pytest.mark.parametrize("what", [what for what, (_, expected) in EDITS.items() if expected])
def test_an_edit_makes_exactly_its_jobs_due(what: str, edited: Engines) -> None:
    edit, expected = EDITS[what]
    edit(edited.clone.folder)
    snakemake, dvc = edited.due()
    assert snakemake == expected, f"Snakemake: {sorted(snakemake ^ expected)}"
    assert dvc == expected, f"DVC: {sorted(dvc ^ expected)}"


def test_edits_that_make_nothing_due(edited: Engines) -> None:
    """All of them at once: if one does, `odm check` says which."""
    for edit, expected in EDITS.values():
        if not expected:
            edit(edited.clone.folder)
    assert edited.due() == (set(), set()), edited.clone.odm("check")


def test_what_is_due_is_what_is_run(engines: Engines) -> None:
    """For real, one after another: each engine in its own copy, to the same bytes."""
    ours, theirs = engines.copy("ours"), engines.copy("theirs")
    for what in ("methods/pams", "a test set more"):
        edit, expected = EDITS[what]
        for clone in (ours, theirs):
            if what == "a test set more":
                photograph("mine/noise.png")(clone.folder)
            edit(clone.folder)
        asked = ours.odm("check")
        assert f"Snakemake: {len(expected)} of 19 jobs due" in asked
        assert f"DVC: {len(expected)} of 19 jobs due" in asked
        assert jobs(ours.snakemake()) == expected
        # By content: there are no other tables where the edit has changed no number.
        assert expected - {"tables"} <= jobs(theirs.dvc()) - {"cards"} <= expected
        assert ours.made() == theirs.made()
        for clone in (ours, theirs):
            clone.adopt()
    for clone in (ours, theirs):
        said = clone.odm("check")
        assert "Snakemake: 0 of 19 jobs due" in said and "DVC: 0 of 19 jobs due" in said


def test_check_says_why(edited: Engines) -> None:
    for what in ("methods/pams", "a run's seed"):
        EDITS[what][0](edited.clone.folder)
    said = edited.clone.odm("check")
    for engine in ("Snakemake", "DVC"):
        mine = said.split(f"{engine}: 9 of 19 jobs due\n")[1]
        assert "  train pams, pams_told; evaluate pams, pams_told: odm/methods/pams/method.py\n" in mine
        assert "  train odm; evaluate odm: run.seed 1 -> 2\n" in mine


def test_results_are_kept_after_an_edit_that_changes_no_number(edited: Engines) -> None:
    """`odm adopt --keep`: said to whom, refused where settings have changed, and asked before."""
    clone = edited.clone
    made = clone.made()
    EDITS["methods/pams"][0](clone.folder)
    EDITS["reporting, one table"][0](clone.folder)
    refused = clone.refused("adopt")
    assert "neither Snakemake nor DVC is up to date" in refused and "odm adopt --keep" in refused
    assert "Aborted" in clone.refused("adopt", "--keep")
    said = clone.adopt("--keep", "--yes")
    assert "odm/methods/pams/method.py: train pams, pams_told; evaluate pams, pams_told" in said
    assert "odm/reporting/markdown.py: tables" in said
    assert edited.due() == (set(), set())
    assert clone.made() == made
    assert "in step already" in clone.adopt()
    EDITS["a run's seed"][0](clone.folder)
    refused = clone.refused("adopt", "--keep", "--yes")
    assert "more than code has changed (train odm: run.seed 1 -> 2); run what is due" in refused
    # What follows goes by the code as it was.
    edited.put_back()
    clone.adopt("--keep", "--yes")


def test_nothing_is_kept_whose_files_are_not_there(engines: Engines) -> None:
    clone = engines.copy("gone")
    EDITS["methods/pams"][0](clone.folder)
    (clone.folder / "results/due/runs/plain/weights.safetensors").unlink()
    assert "more than code has changed (train plain: not made yet); run what is due" in clone.refused(
        "adopt", "--keep", "--yes"
    )
