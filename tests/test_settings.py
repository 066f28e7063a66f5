"""Twenty damaged settings files and more: each answered by one line that names the key and what to do."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from odm import cli
from odm.errors import OdmError
from odm.settings.__main__ import SCHEMA
from odm.settings.reading import load

ROOT = Path(__file__).parents[1]
SUITES = sorted(path.stem for path in (ROOT / "suites").glob("*.yaml"))

# Not one of suites/, so that tuning those breaks no test.
SOUND = """\
suite: quick
device: cpu
threads: 1

images:
  train: [skimage_train]
  test: [skimage_test]
  scales: [2]

networks:
  edsr_tiny:
    backbone: edsr
    channels: 32
    blocks: 4
    scale: 2

pretraining:
  steps: 1200
  batch: 8
  patch: 24
  rate: 0.001
  schedule: cosine

mismatch: {batches: 2}
qat:
  steps: 300
  batch: 8
  patch: 24
  rate: 0.0005
  schedule: step
  log_every: 25

methods:
  plain:
    kind: plain
  odm:
    kind: odm

runs:
  w4a4_plain: {network: edsr_tiny, method: plain, weight_bits: 4, activation_bits: 4}
  w4a4_odm: {network: edsr_tiny, method: odm, weight_bits: 4, activation_bits: 4, seed: 3}
"""


def changed(old: str, new: str) -> bytes:
    """The sound settings with one edit."""
    assert old in SOUND
    return SOUND.replace(old, new, 1).encode()


def without(section: str) -> bytes:
    text = re.sub(rf"(?ms)^{section}:.*?(?=^\w|\Z)", "", SOUND)
    assert text != SOUND
    return text.encode()


def method(line: str) -> bytes:
    """The sound settings with another line in its `odm` method."""
    return changed("    kind: odm", f"    kind: odm\n    {line}")


W4A4_ODM = "  w4a4_odm: {network: edsr_tiny, method: odm, weight_bits: 4"

# What is wrong: the file, and what its one line must say, in this order.
DAMAGED: dict[str, tuple[bytes, list[str]]] = {
    "unknown key at the top": (changed("device: cpu", "devise: cpu"), ["devise: unknown key", "'device'"]),
    "unknown key of images": (changed("  train: [", "  trane: ["), ["images.trane: unknown key", "'train'"]),
    "unknown key of a network": (
        changed("    channels: 32", "    chanels: 32"),
        ["networks.edsr_tiny.chanels: unknown key", "'channels'"],
    ),
    "unknown key of pretraining": (changed("  batch: 8", "  bach: 8"), ["pretraining.bach: unknown key", "'batch'"]),
    "unknown key of qat": (changed("  log_every: 25", "  log_evry: 25"), ["qat.log_evry: unknown key", "'log_every'"]),
    "unknown key of a method": (
        method("regulariser: variance"),
        ["methods.odm.regulariser: unknown key", "'regularizer'"],
    ),
    "unknown key of cooperation": (
        method("cooperation: {rul: sign}"),
        ["methods.odm.cooperation.rul: unknown key", "'rule'"],
    ),
    "unknown key of offsets": (
        method("offsets: {shares: 0.3}"),
        ["methods.odm.offsets.shares: unknown key", "'share'"],
    ),
    "a key of another method": (
        changed("    kind: plain", "    kind: plain\n    offsets: {share: 0.3}"),
        ["methods.plain.offsets: unknown key", "there are", "percentile"],
    ),
    "unknown key of a run": (changed("seed: 3}", "sed: 3}"), ["runs.w4a4_odm.sed: unknown key", "'seed'"]),
    "text for a number": (changed("threads: 1", "threads: one"), ["threads: ", "integer", "'one'"]),
    "a truth value for a number": (changed("threads: 1", "threads: true"), ["threads: ", "integer", "True"]),
    "a fraction for a whole number": (
        changed("steps: 1200", "steps: 12.5"),
        ["pretraining.steps: ", "integer", "12.5"],
    ),
    "a number for a truth value": (
        method("residual_gradient: 1"),
        ["methods.odm.residual_gradient: ", "boolean", "1"],
    ),
    "no value": (changed("threads: 1", "threads:"), ["threads: has no value"]),
    "a word for a list": (changed("[skimage_test]", "skimage_test"), ["images.test: ", "list", "'skimage_test'"]),
    "a word for a mapping": (method("offsets: both"), ["methods.odm.offsets: ", "mapping", "'both'"]),
    "a word for a method": (changed("    kind: odm", "    odm"), ["methods.odm: ", "mapping", "'odm'"]),
    "an empty list": (changed("scales: [2]", "scales: []"), ["images.scales: ", "at least one"]),
    "no runs": (without("runs") + b"runs: {}\n", ["runs: ", "at least one"]),
    "zero steps": (changed("steps: 1200", "steps: 0"), ["pretraining.steps: ", "greater than or equal to 1", "0"]),
    "too high a rate": (changed("rate: 0.001", "rate: 2"), ["pretraining.rate: ", "less than or equal to 1", "2"]),
    "a rate that is no number": (changed("rate: 0.001", "rate: .nan"), ["pretraining.rate: ", "finite"]),
    "an endless strength": (method("strength: .inf"), ["methods.odm.strength: ", "finite"]),
    "a percentile below the middle": (method("percentile: 40.0"), ["methods.odm.percentile: ", "greater than 50"]),
    "bits 0": (changed("weight_bits: 4", "weight_bits: 0"), ["runs.w4a4_plain.weight_bits: ", "should be 1, ", "0"]),
    "bits 9": (changed("weight_bits: 4", "weight_bits: 9"), ["runs.w4a4_plain.weight_bits: ", "8 or 32", "9"]),
    "a scale that is not offered": (changed("scales: [2]", "scales: [5]"), ["images.scales.0: ", "2, 3 or 4", "5"]),
    "a backbone that is not there": (
        changed("backbone: edsr", "backbone: edrs"),
        ["networks.edsr_tiny.backbone: no backbone 'edrs'", "'edsr'"],
    ),
    "a network of no backbone": (changed("    backbone: edsr\n", ""), ["networks.edsr_tiny.backbone: missing"]),
    "a key of another backbone": (
        changed("    channels: 32", "    channels: 32\n    growth: 8"),
        ["networks.edsr_tiny.growth: unknown key", "there are", "blocks"],
    ),
    "heads that do not share": (
        changed("    backbone: edsr\n    channels: 32", "    backbone: swinir\n    channels: 32"),
        ["networks.edsr_tiny: channels: 32 is no multiple of heads (6)"],
    ),
    "a coverage that the backbone has not": (
        changed("    backbone: edsr\n    channels: 32", "    backbone: swinir\n    channels: 60").replace(
            b"    kind: odm", b"    kind: odm\n    coverage: shortcuts"
        ),
        ["methods.odm.coverage: swinir, which runs.w4a4_odm quantizes, has no 'shortcuts'", "there are", "blocks"],
    ),
    "a run of no network": (
        changed(W4A4_ODM, W4A4_ODM.replace("edsr_tiny", "edsr_tinny")),
        ["runs.w4a4_odm.network: no network is called 'edsr_tinny'", "'edsr_tiny'"],
    ),
    "a run of no method": (
        changed(W4A4_ODM, W4A4_ODM.replace("method: odm", "method: plane")),
        ["runs.w4a4_odm.method: no method is called 'plane'", "'plain'"],
    ),
    "a set that is nowhere": (
        changed("[skimage_test]", "[skimage_tset]"),
        ["images.test: no set is called 'skimage_tset'", "'skimage_test'"],
    ),
    "a scale that is not prepared": (
        changed("scales: [2]", "scales: [3, 4]"),
        ["networks.edsr_tiny.scale: 2 is not in images.scales", "add it"],
    ),
    "trained and tested on": (
        changed("[skimage_test]", "[skimage_test, skimage_train]"),
        ["images.test: 'skimage_train' is also trained on", "take it out"],
    ),
    "a run's name with capitals": (changed("  w4a4_odm:", "  W4A4-odm:"), ["runs.W4A4-odm: ", "lower-case letters"]),
    "a run's name that is a number": (changed("  w4a4_odm:", "  44:"), ["runs.44: ", "number", "another"]),
    "a run named as a network": (changed("  w4a4_odm:", "  edsr_tiny:"), ["runs.edsr_tiny: ", "network", "rename"]),
    "a suite's name that is a path": (changed("suite: quick", "suite: ../up"), ["suite: ", "lower-case", "'../up'"]),
    "a cosine of single elements": (
        method("cooperation: {rule: cosine}"),
        ["methods.odm.cooperation: ", "'cosine' needs scope 'layer' or 'network'"],
    ),
    "a rule that is not offered": (
        method("cooperation: {rule: never}"),
        ["methods.odm.cooperation.rule: ", "'always', 'sign' or 'cosine'", "'never'"],
    ),
    "a kind that is not there": (changed("kind: odm", "kind: odmm"), ["methods.odm.kind: no kind 'odmm'", "'odm'"]),
    "a method of no kind": (changed("    kind: odm", "    strength: 0.1"), ["methods.odm.kind: missing"]),
    "no such device": (changed("device: cpu", "device: gpu"), ["device: ", "auto, cpu, cuda", "'gpu'"]),
    **{f"no {key}": (without(key), [f"{key}: missing"]) for key in ("images", "networks", "qat", "methods", "runs")},
    "several keys missing": (
        without("images").replace(b"    backbone: edsr\n", b"").replace(b"suite: quick\n", b""),
        ["suite, images: missing; add them (and 1 more)"],
    ),
    "1e-4": (changed("rate: 0.001", "rate: 1e-4"), ["pretraining.rate: '1e-4' reads as text", "(0.0001)"]),
    "1e-9": (changed("rate: 0.001", "rate: 1e-9"), ["pretraining.rate: '1e-9' reads as text", "(0.000000001)"]),
    "a key twice": (
        changed("  w4a4_odm:", "  w4a4_plain:"),
        [", line 41: not valid YAML: key 'w4a4_plain' is given twice"],
    ),
    "a section twice": (SOUND.encode() + b"\nqat: {}\n", ["not valid YAML: key 'qat' is given twice"]),
    "an open bracket": (changed("[skimage_test]", "[skimage_test"), [", line 8: not valid YAML: "]),
    "an open quote": (changed("suite: quick", 'suite: "quick'), ["not valid YAML: "]),
    "tabs": (changed("    channels: 32", "\tchannels: 32"), [", line 13: not valid YAML: ", "'\\t'"]),
    "a list as a key": (changed("suite: quick", "[a]: b\nsuite: quick"), [", line 1: not valid YAML: a key"]),
    "an impossible date": (changed("suite: quick", "suite: 2001-99-99"), ["not valid YAML: month"]),
    "an object of Python": (
        changed("suite: quick", "suite: !!python/object:os.system x"),
        [", line 1: not valid YAML: "],
    ),
    "two documents": (SOUND.encode() + b"---\n" + SOUND.encode(), ["not valid YAML: ", "another document"]),
    "a control character": (changed("suite: quick", "suite: qu\x00ick"), ["not valid YAML: ", "#x0000"]),
    "an empty file": (b"", ["mapping", "suites/quick.yaml"]),
    "comments alone": (b"# to be done\n", ["mapping", "suites/quick.yaml"]),
    "a list": (b"- suite\n- quick\n", ["mapping", "suites/quick.yaml"]),
    "Latin-1": ("suite: caf\xe9\n".encode("latin-1"), ["not a text file in UTF-8"]),
    "UTF-16": (SOUND.encode("utf-16"), ["not a text file in UTF-8"]),
    "UTF-16 without a mark": (SOUND.encode("utf-16-le"), ["not valid YAML: ", "#x0000"]),
    "a list without end": (SOUND.encode() + b"x: " + b"[" * 20000, ["nested without end"]),
    "a mapping of itself": (changed("  edsr_tiny:\n", "  edsr_tiny: &x\n    more: *x\n"), ["networks.edsr_tiny"]),
    "a list of itself": (SOUND.encode() + b"x: &x [*x]\n", ["x: unknown key"]),
    "a pattern that is a tag": (
        changed("scales: [2]", "scales: [!body.* ]"),
        [", line 8: not valid YAML: ", "'!body.*'", "in quotes"],
    ),
    "10^9 threads": (changed("threads: 1", "threads: 1000000000"), ["threads: ", "1024", "nothing that can be"]),
    "10^9 channels": (
        changed("channels: 32", "channels: 1000000000"),
        ["networks.edsr_tiny.channels: ", "1024", "nothing that can be computed is so large"],
    ),
    "10^18 steps": (
        changed("steps: 1200", "steps: 1000000000000000000"),
        ["pretraining.steps: ", "1000000000", "nothing that can be"],
    ),
    "10^9 patches": (changed("batch: 8", "batch: 1000000000"), ["pretraining.batch: ", "1024", "nothing"]),
    "a warm-up without end": (
        changed("steps: 1200", "steps: 1200\n  warmup: 1200"),
        ["pretraining: warmup: 1200 of 1200 steps leaves none at the full rate; lower it"],
    ),
    "bytes": (bytes(range(256)), ["not a text file in UTF-8"]),
}


def test_undamaged(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(SOUND)
    assert load(path).suite == "quick"


@pytest.mark.parametrize("case", DAMAGED)
def test_one_line_names_the_key(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content, expected = DAMAGED[case]
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["odm", "check"])
    with pytest.raises(SystemExit) as ending:
        cli.main()
    # `sys.exit` with a text prints it and a line end to stderr, and exits with 1: the subprocess test proves it.
    line = str(ending.value.code)
    assert capsys.readouterr() == ("", "")
    assert line.startswith("odm: params.yaml")
    assert len(line.splitlines()) == 1
    place = 0
    for part in expected:
        assert part in line[place:], line
        place = line.index(part, place)
    assert "pydantic" not in line
    assert list(Path().iterdir()) == [Path("params.yaml")]


@pytest.mark.parametrize("case", ["unknown key of offsets", "bits 9", "1e-4", "tabs", "UTF-16"])
def test_through_the_real_command_line(case: str, tmp_path: Path) -> None:
    content, expected = DAMAGED[case]
    (tmp_path / "params.yaml").write_bytes(content)
    done = subprocess.run([sys.executable, "-m", "odm.cli", "check"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("odm: params.yaml")
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("\n")
    assert expected[-1] in done.stderr


def test_the_first_mistake_is_told_and_the_others_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(changed("threads: 1", "threads: 0").replace(b"channels: 32", b"channels: none"))
    with pytest.raises(OdmError, match=r"threads: .*, not 0 \(and 1 more\)$"):
        load(path)


def test_no_settings_at_all(tmp_path: Path) -> None:
    with pytest.raises(OdmError, match=r"params\.yaml: no such file; `odm suite quick` puts one there"):
        load(tmp_path / "params.yaml")


def test_a_folder_in_their_place(tmp_path: Path) -> None:
    with pytest.raises(OdmError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_schema_is_up_to_date(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "odm.settings"], cwd=tmp_path, check=True)
    written = (tmp_path / SCHEMA).read_text()
    assert "Feature channels; 64 in EDSR-baseline." in written
    assert (ROOT / SCHEMA).read_text() == written, f"{SCHEMA} is of other settings; write it: python -m odm.settings"


@pytest.mark.parametrize("suite", SUITES)
def test_suites_load_and_name_the_schema(suite: str) -> None:
    path = ROOT / "suites" / f"{suite}.yaml"
    assert load(path).suite == suite
    first = path.read_text().splitlines()[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named, first
    assert (path.parent / named[1]).resolve() == (ROOT / SCHEMA).resolve()


def test_a_suite_is_in_force() -> None:
    text = (ROOT / "params.yaml").read_text()
    suite = load(ROOT / "params.yaml").suite
    first, rest = text.split("\n", 1)
    assert first == f"# yaml-language-server: $schema={SCHEMA}"
    assert rest == (ROOT / "suites" / f"{suite}.yaml").read_text().split("\n", 1)[1], (
        f"params.yaml is not suites/{suite}.yaml; put it in force: odm suite {suite}"
    )
