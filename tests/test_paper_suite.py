"""The paper's suite: what it holds, what it costs, who it is refused to, and a miniature of it run whole."""

import resource
import shutil
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import skimage.data
import yaml
from PIL import Image

from odm.errors import OdmError
from odm.files import read_json
from odm.networks.build import build
from odm.settings.reading import load
from odm.settings.suite import Settings
from odm.steps import data, evaluate, figures, mismatch, pretrain, tables, train
from odm.training import estimate

ROOT = Path(__file__).parents[1]
PAPER = ROOT / "suites" / "paper.yaml"
BACKBONES = ("edsr", "rdn", "srresnet")
METHODS = ("plain", "odm", "odm_eccv", "pams", "daq", "ddtb")
ABLATIONS = 10
RUNS = len(BACKBONES) * 2 * 3 * len(METHODS) + ABLATIONS
JOBS = {
    "data": 2,
    "pretrain": 6,
    "mismatch": 6,
    "train": RUNS,
    "evaluate": 6 + RUNS,
    "tables": 1,
    "figures": 1,
    "report": 1,
}


def test_every_network_scale_width_and_method_is_there_once() -> None:
    settings = load(PAPER)
    found = Counter(
        (
            settings.networks[run.network].backbone,
            settings.networks[run.network].scale,
            run.weight_bits,
            settings.methods[run.method].kind,
        )
        for name, run in settings.runs.items()
        if not run.method.startswith(("v1_", "v2_"))
    )
    assert found == Counter(product(BACKBONES, (4, 2), (4, 3, 2), METHODS))
    assert len(settings.runs) == RUNS
    assert all(run.weight_bits == run.activation_bits for run in settings.runs.values())
    ablations = [run for run in settings.runs.values() if run.method.startswith(("v1_", "v2_"))]
    assert {(run.network, run.weight_bits) for run in ablations} == {("edsr_x4", 2)}
    assert {run.method for run in settings.runs.values()} == set(settings.methods), "a method that nothing uses"


def test_settings_are_those_of_the_paper_and_of_the_methods_repositories() -> None:
    settings = load(PAPER)
    assert settings.device == "cuda" and not settings.allow_cpu
    assert settings.images.train == ["div2k_train"]
    assert settings.images.test == ["set5", "set14", "b100", "urban100"]
    qat, pretraining = settings.qat, settings.pretraining
    assert (qat.steps, qat.batch, qat.patch, qat.rate, qat.halve_every) == (60000, 8, 48, 0.0001, 15000)
    assert (pretraining.steps, pretraining.halve_every, pretraining.schedule) == (300000, 200000, "step")
    by_name: dict[str, Any] = dict(settings.methods)
    strengths = {run.method: run.network for run in settings.runs.values() if run.method.startswith("odm_eccv")}
    assert {each for method, each in strengths.items() if by_name[method].strength == 0.000001} == {"rdn_x2"}
    assert by_name["odm_eccv"].strength == 0.00001
    shares = {"ddtb": 0.3, "ddtb_rdn": 0.5, "ddtb_srresnet": 0.1}
    for name, share in shares.items():
        assert by_name[name].dynamic_share == share
    for run in settings.runs.values():
        for method in ("ddtb", "odm_eccv"):
            if run.method.startswith(f"{method}_"):
                assert run.network.startswith(run.method.removeprefix(f"{method}_"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of what both front ends read, with the paper's suite in force; the working directory."""
    for name in ("odm", "profiles", "workflow"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copy(PAPER, tmp_path / "params.yaml")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text((ROOT / ".dvc" / "config").read_text() + "    no_scm = true\n")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / ".dvc" / "site"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "command", ["snakemake --cores 8 --dry-run --printshellcmds all", "dvc repro --all-pipelines --force --dry"]
)
def test_a_dry_run_lists_all_jobs_in_seconds(command: str, project: Path) -> None:
    # Processor time, and twice the five seconds of a free core: a busy machine is no fault of ours.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", *command.split()], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    lines = (line.removeprefix("> ").removeprefix("Shell command: ") for line in done.stdout.splitlines())
    jobs = {line.split(" > ")[0].split(" --card ")[0] for line in lines if line.startswith("odm ")}
    assert Counter(job.split()[1] for job in jobs - {"odm cards"}) == JOBS
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10


# On a CPU


def on_cpu(**more: Any) -> Settings:
    content = yaml.safe_load(PAPER.read_text()) | {"device": "cpu"} | more
    return Settings.model_validate(content)


def test_a_cpu_refuses_to_train_for_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OdmError) as refused:
        pretrain.run(on_cpu(), "edsr_x4")  # before it asks for data, of which there are none
    assert str(refused.value).startswith("device: a CPU would train 'edsr_x4' for about ")
    assert " days; " in str(refused.value) and "allow_cpu: true" in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(OdmError, match=r"train\.safetensors"):
        pretrain.run(on_cpu(allow_cpu=True), "edsr_x4")


@pytest.mark.parametrize("name", ["edsr_x4", "edsr_x2", "srresnet_x4", "srresnet_x2"])
def test_each_job_of_the_paper_is_refused_by_itself(name: str) -> None:
    settings = on_cpu()
    network = build(settings.networks[name])
    for training in (settings.pretraining, settings.qat):
        with pytest.raises(OdmError):
            estimate.allow(settings, name, network, training)


@pytest.mark.parametrize("suite", sorted(path.stem for path in PAPER.parent.glob("*.yaml") if path != PAPER))
def test_no_other_suite_is_refused(suite: str) -> None:
    settings = load(PAPER.with_stem(suite))
    for name, network_settings in settings.networks.items():
        network = build(network_settings)
        for training in (settings.pretraining, settings.qat):
            estimate.allow(settings, name, network, training, 3.0)


def test_multiplications_are_those_of_the_paper_and_counting_changes_nothing() -> None:
    settings = load(PAPER)
    for name, gmac in {"edsr_x4": 114.23, "edsr_x2": 316.25}.items():  # for an output of 1280x720
        network = build(settings.networks[name])
        before = {key: value.clone() for key, value in network.state_dict().items()}
        pixels = 1280 * 720 / settings.networks[name].scale ** 2
        assert estimate.macs_a_pixel(network) / estimate.PASSES * pixels / 1e9 == pytest.approx(gmac, abs=0.005)
        assert network.training
        assert all((value == before[key]).all() for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "3 s"), (600, "10 min"), (7200, "2.0 h"), (432000, "5.0 days"), (1e8, "1,157 days")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert estimate.duration(seconds) == text


# Whole, but small

SMALL = {
    "edsr": {"channels": 8, "blocks": 2},
    "rdn": {"channels": 8, "growth": 8, "blocks": 2, "layers": 2},
    "srresnet": {"channels": 8, "blocks": 2},
}


def miniature(folder: Path) -> Settings:
    """The suite's own file with tiny networks, two steps and crops of scikit-image's photographs."""
    for split, image in (("train", skimage.data.rocket()), ("test", skimage.data.astronaut())):
        (folder / split).mkdir()
        for index in range(2):
            Image.fromarray(image[96 : 96 + 96, 96 * index : 96 * index + 96]).save(folder / split / f"{index}.png")
    content = yaml.safe_load(PAPER.read_text())
    content["device"] = "cpu"
    content["images"] |= {
        "train": ["train"],
        "test": ["test"],
        "folders": {each: str(folder / each) for each in ("train", "test")},
    }
    for network in content["networks"].values():
        network |= SMALL[network["backbone"]]
    content["pretraining"] |= {"steps": 2, "batch": 2, "patch": 12}
    content["qat"] |= {"steps": 2, "batch": 2, "patch": 12, "calibration_batches": 1}
    content["mismatch"] |= {"batches": 1}
    return Settings.model_validate(content)


@pytest.mark.slow
def test_a_miniature_runs_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = miniature(tmp_path)
    assert len(settings.runs) == RUNS
    data.run(settings, "train")
    data.run(settings, "test")
    for network in settings.networks:
        pretrain.run(settings, network)
        mismatch.run(settings, network)
        evaluate.run(settings, network)
    with monkeypatch.context() as patch:
        patch.setattr(estimate, "LONGEST_ON_A_CPU", 0)
        with pytest.raises(OdmError, match="allow_cpu"):
            train.run(settings, next(iter(settings.runs)))
    for run in settings.runs:
        train.run(settings, run)
        evaluate.run(settings, run)
        scores = read_json(settings.results / "runs" / run / "metrics.json")["scores"]["test"]
        assert all(0 < each["psnr"] < 100 for each in scores.values()), run
    tables.run(settings)
    figures.run(settings)
    table = (settings.results / "tables.csv").read_text()
    assert all(kind in table for kind in METHODS)


# What is said of the suites


def test_the_table_of_suites_is_right() -> None:
    """docs/suites.md: `| [name](...) | jobs | networks | dials | runs | ...`."""
    text = (ROOT / "docs" / "suites.md").read_text()
    suites = {path.stem: load(path) for path in PAPER.parent.glob("*.yaml")}
    counts = {name: (len(each.networks), len(each.dials), len(each.runs)) for name, each in suites.items()}
    jobs = {name: 2 + 3 * (networks + dials) + 2 * runs + 3 for name, (networks, dials, runs) in counts.items()}
    said = {}
    for line in text.splitlines():
        if line.startswith("| ["):
            name, *numbers = (cell.strip() for cell in line.strip("| ").split("|")[:5])
            said[name[1 : name.index("]")]] = tuple(map(int, numbers))
    assert said == {name: (jobs[name], *counts[name]) for name in suites}
    assert f"# {jobs['paper']} jobs and `all`" in text
