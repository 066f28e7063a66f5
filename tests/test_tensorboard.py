"""`odm tensorboard`: what TensorBoard reads is what each history.csv says."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import requests
import torch
from test_cli import main
from test_figures import write_history
from test_tables import settings

from odm.errors import OdmError
from odm.reporting import events, results
from odm.settings.suite import Settings
from odm.steps import tensorboard as step
from odm.training import checkpoint, history

accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="needs odm-sr[tensorboard]"
)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A suite of which two runs are trained, one of them with a regularizer."""
    monkeypatch.chdir(tmp_path)
    made = settings()
    write_history(made, "w2a2_odm_1", regularized=True)
    write_history(made, "w2a2_plain", regularized=False)
    return made


def seen(folder: Path) -> pd.DataFrame:
    """What the viewer has of a folder, by step and tag."""
    found = accumulator.EventAccumulator(str(folder), size_guidance={accumulator.TENSORS: 0}).Reload()
    return pd.DataFrame(
        {tag: {each.step: each.value for each in found.Scalars(tag)} for tag in found.Tags()["scalars"]}
    )


def test_every_number_of_a_history_is_a_point(made: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    step.run(made, Path("events"))
    assert capsys.readouterr().out == "events/made_up: 2 of 6 trainings; `tensorboard --logdir events` shows them\n"
    assert {path.parent.name for path in Path("events/made_up").rglob("*tfevents*")} == {"w2a2_odm_1", "w2a2_plain"}
    for name in ("w2a2_odm_1", "w2a2_plain"):
        trained = results.history(made, name)
        assert trained is not None
        wanted = trained.dropna(axis="columns").rename(columns=lambda column: column.replace(".", "/", 1))
        assert {"loss", "rate"} <= set(wanted) and ("agreement/blocks.0.conv1" in wanted) == (name == "w2a2_odm_1")
        pd.testing.assert_frame_equal(
            seen(Path("events/made_up") / name)[list(wanted)], wanted, check_names=False, check_index_type=False
        )


def test_equal_histories_give_equal_bytes_and_a_new_one_takes_their_place(made: Settings) -> None:
    path = Path("events/made_up/w2a2_plain") / events.NAME
    step.run(made, Path("events"))
    first = path.read_bytes()
    step.run(made, Path("events"))
    assert path.read_bytes() == first
    (results.folder(made, "w2a2_plain") / "history.csv").write_text("step,rate,loss\n5,0.1,7\n")
    step.run(made, Path("events"))
    assert seen(path.parent).to_dict() == {"rate": {5: pytest.approx(0.1)}, "loss": {5: 7.0}}


def test_a_training_under_way_is_shown_as_far_as_its_checkpoint(made: Settings) -> None:
    network = torch.nn.Linear(1, 1)
    rows = [{"step": 10, "rate": 1 / 3, "loss": 3}, {"step": 20, "rate": 0.25, "loss": 2.5, "spike": 6.0}]

    def save(kind: str, name: str, rows: list[checkpoint.Row]) -> Path:
        path = Path("checkpoints/made_up") / kind / name / "last.safetensors"
        checkpoint.save(path, "id", 20, network, torch.optim.Adam(network.parameters()), rows)
        return path

    save("networks", "tiny", rows[:1])
    killed = save("runs", "w2a2_plain", rows)
    step.run(made, Path("events"))
    path = Path("events/made_up/tiny") / events.NAME
    first, node = path.read_bytes(), path.stat().st_ino
    assert seen(path.parent).to_dict() == {"rate": {10: pytest.approx(1 / 3, abs=1e-6)}, "loss": {10: 3.0}}
    assert 100 in seen(Path("events/made_up/w2a2_plain")).index, "history.csv goes before what a killed training left"

    killed.write_bytes(b"damaged")
    history.write(results.folder(made, "tiny") / "history.csv", rows)
    step.run(made, Path("events"))
    assert path.read_bytes().startswith(first) and path.stat().st_ino == node, "TensorBoard follows what grows"
    assert seen(path.parent)["loss"].to_dict() == {10: 3.0, 20: 2.5}
    assert seen(path.parent)["spike"].dropna().to_dict() == {20: 6.0}
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    step.run(made, Path("events"))
    assert path.read_bytes() == whole, "what was cut short is whole again"


def test_mistakes(made: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").write_text("mine\n")
    with pytest.raises(OdmError, match=r"file/made_up/w2a2_odm_1/events.* cannot be written: a file is in its folder"):
        step.run(made, Path("file"))
    for name in ("w2a2_odm_1", "w2a2_plain"):
        (results.folder(made, name) / "history.csv").unlink()
    with pytest.raises(OdmError, match=r"results/made_up: no history\.csv in it yet; `snakemake --cores 8 all`"):
        step.run(made, Path("events"))
    assert not Path("events").exists()


def test_without_the_extra_it_is_named(made: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [each for each in sys.modules if each.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    Path("params.yaml").write_text(made.model_dump_json())
    said = main(monkeypatch, "tensorboard")
    assert said == "odm: tensorboard: not installed; `pip install 'odm-sr[tensorboard]'` brings it"


@pytest.mark.slow
def test_the_viewer_shows_it_and_follows(made: Settings) -> None:
    step.run(made, Path("tensorboard"))
    command = [Path(sys.executable).with_name("tensorboard"), "--logdir", "tensorboard"]
    with subprocess.Popen(
        [*command, "--port", "0", "--reload_interval", "1"], stderr=subprocess.PIPE, text=True
    ) as viewer:
        try:
            assert viewer.stderr is not None
            address = next(found[1] for line in viewer.stderr if (found := re.search(r" at (http\S+/)", line)))

            def wait_for(points: int) -> None:
                asked = {"run": "made_up/w2a2_plain", "tag": "loss"}
                for _ in range(120):
                    answer = requests.get(f"{address}data/plugin/scalars/scalars", asked)
                    if answer.ok and len(answer.json()) == points:
                        return
                    time.sleep(1)
                raise AssertionError(answer.text)

            wait_for(10)
            path = results.folder(made, "w2a2_plain") / "history.csv"
            path.write_text(f"{path.read_text()}110,0.001,4.5,9,0.3,0.5,0.4\n")
            step.run(made, Path("tensorboard"))
            wait_for(11)
        finally:
            viewer.terminate()
