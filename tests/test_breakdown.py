"""Training that breaks down: it stops in one line, saves nothing and keeps its checkpoint; what is odd is marked."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError
from test_errors import RUN, SETTINGS, finished, one_line, project, tree  # noqa: F401
from trial import ODM, PLAIN, QAT, equal, killed_and_resumed, quantized, state, trained

from odm import inference
from odm.card import card, origin
from odm.errors import OdmError
from odm.networks import weights
from odm.settings.reading import load
from odm.settings.suite import Settings
from odm.settings.training import Qat, Training
from odm.training import breakdown, history
from odm.training.loop import Batches, rate_at, warmth_at
from odm.training.objective import Objective


def poisoned(batches: Batches, at: int) -> Batches:
    """One batch of them makes a loss that is not finite."""

    def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        low, high = batches(step)
        return low, high * torch.nan if step == at else high

    return batch


def test_stops_at_the_first_loss_that_is_not_finite_and_keeps_the_checkpoint(float_state, layers, batches, tmp_path):
    method = quantized(PLAIN, float_state, layers, batches)
    saved = tmp_path / "last"
    with pytest.raises(OdmError) as raised:
        trained(method, poisoned(batches, 6), saved)
    assert str(raised.value) == (
        "training stopped at step 7 of 12: loss nan; likely too high: rate (0.001); lower it, or set warmup or "
        f"clip_norm; {saved} stays at step 4"
    )
    # What stays is good: from there it goes on to the same end as a training that was never stopped.
    resumed, whole = (quantized(PLAIN, float_state, layers, batches) for _ in range(2))
    rows = trained(resumed, batches, saved)
    assert rows == trained(whole, batches, tmp_path / "whole")
    assert equal(state(resumed), state(whole))


def test_a_strength_beyond_all_bounds_stops_before_it_does_harm(float_state, layers, batches, tmp_path):
    method = quantized(ODM.model_copy(update={"strength": 1e38}), float_state, layers, batches)
    before = state(method)
    with pytest.raises(
        OdmError,
        match=r"^training stopped at step 1 of 12: the norm of the gradient is (inf|nan) \(the loss [\d.]+\); "
        r"likely too high: strength \(1e\+38\); lower it, or set warmup or clip_norm; nothing is saved$",
    ):
        trained(method, batches, tmp_path / "last")
    assert equal(state(method), before)
    assert not list(tmp_path.iterdir())


def test_a_network_that_is_broken_already(float_state, layers, batches, tmp_path):
    method = quantized(PLAIN, float_state, layers, batches)
    with pytest.raises(OdmError, match=r"at step 1 of 12: loss nan; no step had been taken: look at the network"):
        trained(method, poisoned(batches, 0), tmp_path / "last")


def test_a_gpu_is_asked_at_rows_and_before_the_checkpoint(float_state, layers, batches, tmp_path, monkeypatch):
    """As a GPU has it: the loss of one step alone is bad, and is not forgotten until the row."""
    made = breakdown.Watch.__init__

    def waiting(self, *arguments) -> None:
        made(self, *arguments)
        self.waits = True

    monkeypatch.setattr(breakdown.Watch, "__init__", waiting)
    method = quantized(PLAIN, float_state, layers, batches)
    with pytest.raises(OdmError, match=r"stopped by step 8 of 12: loss nan; .*last stays at step 4$"):
        trained(method, poisoned(batches, 5), tmp_path / "last")


# Warm-up and clipping


def test_warm_up_rises_evenly_to_the_schedule():
    training = Training(steps=100, batch=1, patch=8, rate=0.1, schedule="step", halve_every=40, warmup=10)
    assert [rate_at(at, training) for at in (0, 4, 9, 10, 39, 40)] == pytest.approx([0.1, 0.5, 1, 1, 1, 0.5])
    assert [warmth_at(at, training) for at in (0, 9, 99)] == pytest.approx([0.1, 1, 1])
    assert warmth_at(0, training.model_copy(update={"warmup": 0})) == 1


def test_a_warm_up_without_an_end_is_refused():
    with pytest.raises(ValidationError, match="warmup: 100 of 100 steps leaves none at the full rate"):
        Training(steps=100, batch=1, patch=8, rate=0.1, schedule="cosine", warmup=100)


def test_warm_up_takes_smaller_steps(float_state, layers, batches, tmp_path):
    moved = []
    for warmup in (0, 8):
        method = quantized(PLAIN, float_state, layers, batches)
        before = state(method)
        trained(method, batches, tmp_path / str(warmup), steps=2, warmup=warmup)
        moved.append(sum((value - before[key]).abs().sum() for key, value in state(method).items()))
    assert 0 < moved[1] < 0.5 * moved[0]


def test_clipping_shortens_what_is_longer_and_nothing_else(float_state, layers, batches, tmp_path):
    def after(clip_norm: float | None) -> dict[str, torch.Tensor]:
        method = quantized(ODM, float_state, layers, batches)
        trained(method, batches, tmp_path / str(clip_norm), clip_norm=clip_norm)
        return state(method)

    free = after(None)
    assert equal(after(1e9), free)
    assert not equal(after(0.01), free)

    parameters = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([0.0, 3.0, 0.0]), torch.tensor([4.0])
    settings = QAT.model_copy(update={"clip_norm": 0.5})
    breakdown.Watch(parameters, settings, Objective(), Path("last")).step(0, torch.tensor(1.0), [])
    assert torch.cat([each.grad for each in parameters]).tolist() == pytest.approx([0, 0.3, 0, 0.4], rel=1e-4)


@pytest.mark.parametrize("changes", [{"warmup": 5}, {"clip_norm": 1.0}])
def test_both_count_only_where_they_are_set(changes: dict[str, float]) -> None:
    """Off, they are on no card, so that nothing made before there were such settings is due."""
    settings = Settings.model_validate(SETTINGS | {"qat": SETTINGS["qat"] | {"steps": 9}})
    assert not {"warmup", "clip_norm"} & card(settings, "train", "w2a2").settings["qat"].keys()
    other = settings.model_copy(update={"qat": settings.qat.model_copy(update=changes)})
    assert card(other, "train", "w2a2").settings["qat"].items() >= changes.items()
    assert origin(other, "w2a2") != origin(settings, "w2a2")
    assert origin(other, "net") == origin(settings, "net")


def test_both_go_on_after_a_kill(float_state, layers, batches, tmp_path, monkeypatch):
    monkeypatch.setattr("trial.QAT", QAT.model_copy(update={"warmup": 6, "clip_norm": 1.0}))
    killed_and_resumed(lambda: quantized(ODM, float_state, layers, batches), batches, tmp_path)


# Spikes


def leaping(batches: Batches, at: int) -> Batches:
    def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        low, high = batches(step)
        return low, high + 1000 if step == at else high

    return batch


def test_a_spike_is_noted_where_it_was_and_nowhere_else(float_state, layers, batches, tmp_path, capsys):
    """Between two rows too; a history without one has no such column."""
    sizes = {"steps": 24, "log_every": 4}
    rows = trained(quantized(PLAIN, float_state, layers, batches), leaping(batches, 17), tmp_path / "leaping", **sizes)
    assert [row["step"] for row in rows if "spike" in row] == [20]
    assert rows[4]["spike"] > breakdown.SPIKE
    assert "step 20: since the last row the loss was " in capsys.readouterr().out
    history.write(tmp_path / "leaping.csv", rows)
    head, *lines = (tmp_path / "leaping.csv").read_text().splitlines()
    assert head.endswith(",spike")
    assert [line.endswith(",") for line in lines] == [True] * 4 + [False, True]
    rows = trained(quantized(PLAIN, float_state, layers, batches), batches, tmp_path / "even", **sizes)
    assert not any("spike" in row for row in rows)


# Through the steps


def edit(change: Callable[[dict], None]) -> None:
    content = yaml.safe_load(Path("params.yaml").read_text())
    change(content)
    Path("params.yaml").write_text(yaml.safe_dump(content))


def test_no_weights_are_written(project: Path) -> None:  # noqa: F811
    edit(lambda content: content["methods"]["odm"].update(strength=1e38))
    before = tree(project)
    line = one_line("train", "w2a2")
    assert line.startswith("odm: training stopped at step 1 of 4: the norm of the gradient is ")
    assert tree(project) == before


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_no_image(project: Path, value: float) -> None:  # noqa: F811
    """It was black, and 7 dB."""
    settings = load()
    network = inference.load(settings, "w2a2", torch.device("cpu"))
    with torch.no_grad():
        next(network.parameters())[0] = value
    weights.save(RUN / "weights.safetensors", network, origin(settings, "w2a2"))
    shutil.rmtree("logs", ignore_errors=True)
    before = tree(project)
    said = "the output is not finite: the weights are broken; train it again, at a lower rate"
    assert one_line("evaluate", "w2a2") == f"odm: w2a2: '1' of 'held': {said}"
    assert one_line("upscale", "photos/held/1.png", "--with", "w2a2") == f"odm: w2a2: {said}"
    assert tree(project) == before


def test_settings_have_them_off() -> None:
    qat = Qat(steps=1, batch=1, patch=8, rate=0.1, schedule="cosine")
    assert (qat.warmup, qat.clip_norm) == (0, None)
