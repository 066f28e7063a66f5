"""`odm bench-inference`: who is timed where, what is told; and every command of docs/deploy.md."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from test_certificate import shipped  # noqa: F401  (a fixture)
from test_cli import main
from test_deploy import FORMS, lows, quantized
from trial import NETWORK, photographs

from odm import model as model_file
from odm.deploy.fast import fast_form
from odm.deploy.integer import integer_layers
from odm.deploy.onnx_file import to_onnx
from odm.deploy.runtimes import RESTRICTIONS, features, runtimes
from odm.deploy.timing import Contender, memory, quartiles, timed
from odm.errors import OdmError
from odm.methods.daq.settings import Daq
from odm.networks.build import build
from odm.networks.device import usable_cores
from odm.steps import bench_inference

pytest.importorskip("onnx", reason="needs odm-sr[deploy]")
pytest.importorskip("onnxscript", reason="needs odm-sr[deploy]")
pytestmark = pytest.mark.skipif(not runtimes(), reason="neither onnxruntime nor openvino is installed")

ROOT = Path(__file__).parents[1]
IMAGE = lows()[0].numpy()


def test_all_forms_are_timed_in_all_runtimes(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    bench_inference.run(None, str(shipped), 24, 3, as_json=True)
    told = json.loads(capsys.readouterr().out)
    forms = [("torch", "float"), ("torch", "trained")]
    forms += [(each.name, form) for each in runtimes() for form in ("float", "exact", "fast")]
    threads = dict.fromkeys((1, usable_cores()))
    assert [(each["runtime"], each["form"], each["threads"]) for each in told["results"]] == [
        (*form, count) for count in threads for form in forms
    ]
    assert told["image"] == [24, 24] and told["refused"] == {}
    # Four layers of 8 by 8 channels, of those and: head, last, upsampler, and a tail on four times as many pixels.
    quantized_macs, rest = 4 * 8 * 8, 3 * 8 + 8 * 8 + 8 * 32 + 4 * 8 * 3
    assert told["coverage"]["share"] == pytest.approx(quantized_macs / (quantized_macs + rest))
    assert told["coverage"]["ceiling"] == pytest.approx((quantized_macs + rest) / rest)
    for each in told["results"]:
        lower, median, upper = each["ms"]
        assert 0 < lower <= median <= upper
        assert each["peak_mib"] is None or each["peak_mib"] > 0
        if each["form"] == "float":
            assert each["faster"] == [1, 1, 1]
        if each["form"] == "fast":  # all but the head
            assert each["integer"]["share"] == pytest.approx(1 - 3 * 8 / (quantized_macs + rest))
    table = bench_inference._table(told)
    rows = [line.split("|")[1:4] for line in table.splitlines() if line.startswith("| ")]
    assert [[cell.strip() for cell in row] for row in rows[1:]] == [
        [*form, str(count)] for count in threads for form in forms
    ]
    assert "quantized layers are 36.8% of the multiplications" in table and "1.6 times" in table


def test_what_has_no_form_is_timed_without_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from test_certificate import ABOUT

    daq = Daq(kind="daq")
    path = tmp_path / "it.safetensors"
    model_file.write(path, ABOUT.model_copy(update={"method": daq}), quantized(build(NETWORK), daq))
    bench_inference.run(None, str(path), 24, 2, as_json=False)
    said = capsys.readouterr().out
    assert "no exact form: blocks.0.conv1: its levels are found anew for each image" in said
    assert "| torch | trained |" in said and "| exact |" not in said and "| fast |" not in said


def test_processes_have_no_restriction_and_a_peak_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    form = fast_form(FORMS["direct"](), lows(), lows())
    file = tmp_path / "fast.onnx"
    file.write_bytes(to_onnx(form, {}).SerializeToString())
    for key in RESTRICTIONS:
        monkeypatch.setenv(key, "AVX2")
    contenders = [Contender(each.name, "fast", file, tuple(integer_layers(form))) for each in runtimes()]
    for each in timed(contenders, IMAGE, 1, 4):
        assert len(each.seconds) == 4 and min(each.seconds) > 0
        assert [operator.layer for operator in each.operators] == list(integer_layers(form))
        if each.contender.runtime == "openvino" and "avx512f" in features():
            assert all("avx512" in operator.ran_as for operator in each.operators)
        if memory("VmHWM") is not None:
            assert each.peak_mib is not None and 0 < each.peak_mib < 500


def test_a_contender_that_fails_is_named(tmp_path: Path) -> None:
    file = tmp_path / "none.onnx"
    file.write_bytes(b"no model")
    name = runtimes()[0].name
    with pytest.raises(OdmError, match=f"^exact in {name}: ") as caught:
        timed([Contender(name, "exact", file)], IMAGE, 1, 2)
    assert "\n" not in str(caught.value)


def test_quartiles() -> None:
    assert quartiles([4, 1, 3, 2, 5]) == (2, 3, 4)


# The document


def commands() -> list[str]:
    """Those that docs/deploy.md shows, but for the installation."""
    text = (ROOT / "docs" / "deploy.md").read_text()
    found = [line.partition("#")[0].strip() for line in re.findall(r"^    (odm .*)$", text, re.MULTILINE)]
    assert len(found) >= 7
    return found


SMALLER = {
    "export": ["--most", "1"],
    "certify": ["--most", "1"],
    "bench-inference": ["--side", "16", "--rounds", "2"],
}


@pytest.mark.slow
def test_every_command_of_the_document_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a project of a trained run of that name, and on smaller images."""
    photographs(tmp_path, (60, 40))
    settings: dict[str, Any] = yaml.safe_load((ROOT / "suites" / "quick.yaml").read_text())
    small = {"steps": 2, "batch": 2, "patch": 16, "log_every": 1}
    settings |= {
        "images": {
            "train": ["mine"],
            "test": ["held"],
            "scales": [2],
            "folders": {each: str(tmp_path / each) for each in ("mine", "held")},
        },
        "networks": {"edsr": {"backbone": "edsr", "channels": 8, "blocks": 2, "scale": 2}},
        "dials": {},
        "methods": {"plain": {"kind": "plain"}},
        "runs": {"w4a4_plain": {"network": "edsr", "method": "plain", "weight_bits": 4, "activation_bits": 4}},
        "pretraining": settings["pretraining"] | small,
        "qat": settings["qat"] | small | {"calibration_batches": 1},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save("photo.png")
    for made in (["data", "train"], ["data", "test"], ["pretrain", "edsr"], ["train", "w4a4_plain"]):
        assert main(monkeypatch, *made) == 0, capsys.readouterr()
    assert main(monkeypatch, "evaluate", "w4a4_plain") == 0, capsys.readouterr()
    assert main(monkeypatch, "ship", "w4a4_plain", "--output", "shipped.safetensors") == 0
    for command in commands():
        _, step, *rest = shlex.split(command)
        rest = ["skimage_test" if each == "set5" else each for each in rest]  # which is here
        assert main(monkeypatch, step, *rest, *SMALLER.get(step, [])) == 0, (command, capsys.readouterr())
