"""No two draws of a suite share a stream of random numbers."""

import ast
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from odm.seeds import named
from odm.settings.reading import load
from odm.settings.suite import Settings
from odm.steps import mismatch, pretrain, train
from odm.training.patches import Patches

ROOT = Path(__file__).parents[1]


class Stopped(Exception):  # noqa: N818
    pass


def stream(monkeypatch: pytest.MonkeyPatch, step: Any, settings: Settings, name: str) -> int:
    """The seed that a step draws its patches by."""
    seeds = []

    def of(cls: type, settings: Settings, network: str, training: Any, seed: int, device: Any) -> None:
        seeds.append(seed)
        raise Stopped

    monkeypatch.setattr(Patches, "of", classmethod(of))
    if step is mismatch:
        monkeypatch.setattr(step.inference, "load", lambda *_: None)
    with pytest.raises(Stopped):
        step.run(settings, name)
    return seeds[0]


@pytest.mark.parametrize("suite", ["quick", "dial", "ablations"])
def test_steps_of_one_seed_draw_other_patches(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of seed 1 must not repeat the batches that its network, of seed 1, was pretrained on."""
    settings = load(ROOT / "suites" / f"{suite}.yaml")
    network = settings.networks["edsr_tiny"]
    runs = {run.seed: name for name, run in settings.runs.items() if run.network == "edsr_tiny"}
    drawn = [stream(monkeypatch, step, settings, "edsr_tiny") for step in (pretrain, mismatch)]
    drawn += [stream(monkeypatch, train, settings, name) for name in runs.values()]
    assert network.seed in runs
    assert len(set(drawn)) == len(drawn)


def test_each_draw_has_a_name_of_its_own() -> None:
    names: Counter[str] = Counter()
    for path in (ROOT / "odm").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "seeds.named":
                names[ast.unparse(node.args[1])] += 1
    assert len(names) >= 7
    assert {name for name, count in names.items() if count > 1} == set()


def test_a_seed_is_of_its_number_and_name() -> None:
    found = {named(seed, name) for seed in range(20) for name in ("weights", "pretraining", "training", "gates")}
    assert len(found) == 80
    assert all(0 <= each < 2**63 for each in found)
