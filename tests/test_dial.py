"""The mismatch dial: the same function, channels further apart; settings, weights, table and figure of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_figures import texts
from test_tables import cells, read, settings, write

from odm.card import origin
from odm.errors import OdmError
from odm.images.metrics import psnr
from odm.inference import upscale
from odm.methods.build import method_class
from odm.methods.odm.settings import Odm, Offsets
from odm.methods.plain.settings import Plain
from odm.methods.settings import MethodSettings
from odm.networks import weights
from odm.networks.build import build
from odm.networks.dial import turn
from odm.networks.edsr.settings import Edsr
from odm.networks.rdn.settings import Rdn
from odm.networks.settings import Dial
from odm.networks.srresnet.settings import Srresnet
from odm.networks.swinir.settings import Swinir
from odm.quantization.offsets import choose
from odm.quantization.statistics import measured
from odm.reporting import dial as figure
from odm.reporting import results
from odm.settings.suite import Network, Settings
from odm.settings.training import Run
from odm.steps import dial as step

NETWORKS: dict[str, Network] = {
    "edsr": Edsr(backbone="edsr", channels=8, blocks=2, scale=2),
    "srresnet": Srresnet(backbone="srresnet", channels=8, blocks=2, batch_norm=False, scale=2),
    "srresnet_bn": Srresnet(backbone="srresnet", channels=8, blocks=2, batch_norm=True, scale=2),
    "rdn": Rdn(backbone="rdn", channels=8, growth=4, blocks=2, layers=3, scale=2),
    "swinir": Swinir(backbone="swinir", channels=12, blocks=1, layers=2, heads=2, window=4, scale=2),
}
EXACT = [(name, "scale") for name in NETWORKS] + [("swinir", "shift")]


def dial(strength: float, kind: Any = "scale", seed: int = 1) -> Dial:
    return Dial(network="tiny", strength=strength, kind=kind, seed=seed)


def images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 255


@pytest.mark.parametrize("strength", [0.5, 1.0, 1.5, 3.0])
@pytest.mark.parametrize(("name", "kind"), EXACT)
@torch.no_grad()
def test_the_function_stays(name: str, kind: str, strength: float) -> None:
    """In float64 to its last digits, at borders too; also where activations are large."""
    network = build(NETWORKS[name]).double().eval()
    x = images(2, 3, 9, 11)
    before = network(x)
    weights_before = {key: value.clone() for key, value in network.state_dict().items()}
    turn(network, dial(strength, kind))
    assert (network(x) - before).abs().max() < 1e-10 * before.abs().max()
    assert any(not torch.equal(value, weights_before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(("name", "kind"), EXACT)
@torch.no_grad()
def test_psnr_of_float_stays(name: str, kind: str) -> None:
    """To 1e-4 dB, as the networks run: in float32. Before rounding to 8 bits, which would hide it."""
    network = build(NETWORKS[name]).eval()
    x = images(1, 3, 24, 20).float()
    reference = (network(x) + 5 * torch.randn(1, 3, 48, 40, generator=torch.Generator().manual_seed(2))).numpy()
    found = []
    for strength in (0.0, 1.5):
        turn(network, dial(strength, kind))
        found.append(psnr(network(x).numpy()[0, 0], reference[0, 0]))
    assert found[1] == pytest.approx(found[0], abs=1e-4)
    assert found[0] > 30


@torch.no_grad()
def test_rounded_outputs_stay() -> None:
    network = build(NETWORKS["edsr"]).eval()
    image = np.random.default_rng(1).integers(0, 256, (20, 17, 3), np.uint8)
    before = upscale(network, image)
    turn(network, dial(1.5))
    assert np.mean(upscale(network, image) != before) < 0.001


@torch.no_grad()
def test_only_the_pairs_change_and_by_these_factors() -> None:
    network, turned = build(NETWORKS["edsr"]), build(NETWORKS["edsr"])
    assert turn(turned, dial(1.5)) == ["blocks.0.conv1", "blocks.1.conv1"]
    factors = []
    for index in range(2):
        before, after = network.blocks[index], turned.blocks[index]
        s = after.conv1.weight[:, 0, 1, 1] / before.conv1.weight[:, 0, 1, 1]
        torch.testing.assert_close(after.conv1.weight, before.conv1.weight * s.view(-1, 1, 1, 1))
        torch.testing.assert_close(after.conv1.bias, before.conv1.bias * s)
        torch.testing.assert_close(after.conv2.weight, before.conv2.weight / s.view(1, -1, 1, 1))
        assert torch.equal(after.conv2.bias, before.conv2.bias)
        factors.append(s)
    assert not torch.allclose(*factors)
    for name in ("head", "last", "tail"):
        assert torch.equal(turned.get_submodule(name).weight, network.get_submodule(name).weight)


def factors(strength: float, seed: int = 1) -> torch.Tensor:
    """Logarithms of the first layer's."""
    network, turned = (build(NETWORKS["edsr"]).double() for _ in range(2))
    torch.rand(7)  # draws elsewhere must not matter
    turn(turned, dial(strength, seed=seed))
    return (turned.blocks[0].conv1.weight / network.blocks[0].conv1.weight)[:, 0, 0, 0].log()


@torch.no_grad()
def test_factors_are_of_the_seed_and_proportional_to_the_strength() -> None:
    assert torch.equal(factors(1.5), factors(1.5))
    assert not torch.allclose(factors(1.5), factors(1.5, seed=2))
    torch.testing.assert_close(factors(1.5), 3 * factors(0.5))
    assert torch.equal(factors(0.0), torch.zeros(8, dtype=torch.float64))


@torch.no_grad()
def test_factors_are_log_normal() -> None:
    network = build(Edsr(backbone="edsr", channels=64, blocks=8, scale=2)).double()
    before = torch.stack([block.conv1.weight[:, 0, 0, 0] for block in network.blocks])
    turn(network, dial(1.5))
    logarithms = (torch.stack([block.conv1.weight[:, 0, 0, 0] for block in network.blocks]) / before).log()
    assert logarithms.std().item() == pytest.approx(1.5, rel=0.1)
    assert logarithms.mean().item() == pytest.approx(0, abs=0.2)


@torch.no_grad()
def test_the_layers_behind_it_are_those_that_offsets_choose() -> None:
    network = build(Edsr(backbone="edsr", channels=24, blocks=4, scale=2)).eval()
    names = network.placement("blocks").layers

    def mismatch() -> dict[str, dict[str, Any]]:
        return measured(network, names, [images(2, 3, 24, 24).float()], percentile=99)

    before = mismatch()
    turn(network, dial(1.5))
    after = mismatch()
    for name in names:
        grown = after[name]["deviation_mismatch"] / before[name]["deviation_mismatch"]
        assert grown > 2 if name.endswith("conv2") else grown == pytest.approx(1, rel=1e-3)
    assert {f"blocks.{index}.conv2" for index in range(4)} <= set(choose(after, 0.625)["scale"])


@pytest.mark.parametrize("bits", [4, 3])
@pytest.mark.parametrize(("name", "kind", "strength"), [("edsr", "scale", 1.5), ("swinir", "shift", 4.0)])
@torch.no_grad()
def test_offsets_win_back_what_it_costs_before_training(name: str, kind: Any, strength: float, bits: int) -> None:
    """Calibrated alone; training has float weights learn their way around a shift (docs/deviations.md)."""
    x = images(2, 3, 24, 24).float()

    def error(strength: float, settings: MethodSettings) -> float:
        network = build(NETWORKS[name]).eval()
        turn(network, dial(strength, kind))
        expected = network(x)
        layers = measured(network, network.placement("body").layers, [x], percentile=99)
        run = Run(network="n", method="m", weight_bits=32, activation_bits=bits)
        method = method_class(settings.kind)(network, settings, run)  # type: ignore[arg-type]
        method.prepare(layers, [x])
        return (method.network(x) - expected).square().mean().sqrt().item()

    plain, turned = (error(each, Plain(kind="plain")) for each in (0.0, strength))
    offsets = Odm(kind="odm", regularizer="none", offsets=Offsets(kind=kind, share=0.6, undone=True))
    assert turned > 2 * plain
    assert turned - error(strength, offsets) > 0.8 * (turned - plain)


def test_a_shift_is_refused_where_it_is_not_exact() -> None:
    for name in ("edsr", "srresnet", "rdn"):
        with pytest.raises(OdmError, match=r"no two layers between which a shift .* take another kind"):
            turn(build(NETWORKS[name]), dial(1.0, "shift"))


# Settings, and the step


def with_dial(**changes: Any) -> Settings:
    """Settings with a network, the dial at 1.5 and 3.0, and three methods on each, `odm` of two seeds."""
    runs = {}
    for network in ("tiny", "half", "full"):
        for method, seeds in (("plain", (1,)), ("odm", (1, 2)), ("per_channel", (1,))):
            for seed in seeds:
                runs[f"{network}_{method}_{seed}"] = {
                    "network": network,
                    "method": method,
                    "weight_bits": 32,
                    "activation_bits": 3,
                    "seed": seed,
                }
    content = {
        "dials": {"full": {"network": "tiny", "strength": 3.0}, "half": {"network": "tiny", "strength": 1.5}},
        "methods": {name: {"kind": name} for name in ("plain", "odm", "per_channel")},
        "runs": runs,
    }
    return settings(**content | changes)


def test_a_digest_of_its_own() -> None:
    made = with_dial()
    digests = {name: origin(made, name) for name in (*made.floats, *made.runs)}
    assert len(set(digests.values())) == len(digests)
    for changed in (
        with_dial(dials={"half": {"network": "tiny", "strength": 1.25}, "full": {"network": "tiny", "strength": 3.0}}),
        with_dial(dials={name: {"network": "tiny", "strength": 1.5, "seed": 2} for name in ("half", "full")}),
        with_dial(pretraining=made.pretraining.model_dump() | {"steps": 7}),
    ):
        for name in ("half", "half_plain_1"):
            assert origin(changed, name) != digests[name]
    assert origin(with_dial(dials=made.model_dump()["dials"]), "half") == digests["half"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dials": {"half": {"network": "tyni", "strength": 1.0}}}, "dials.half.network: .*; did you mean 'tiny'"),
        ({"dials": {"tiny": {"network": "tiny", "strength": 1.0}}}, "dials.tiny: a network has the same name"),
        ({"dials": {"half": {"network": "tiny", "strength": -1.0}}}, "greater than or equal to 0"),
        ({"dials": {"half": {"network": "half", "strength": 1.0}}}, "no network is called 'half'"),
        ({"dials": {"tiny_plain_1": {"network": "tiny", "strength": 1.0}}}, "'half'|the same name"),
    ],
)
def test_damaged_settings(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        with_dial(**changes)


def test_the_step_writes_the_same_bytes_and_refuses_other_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = with_dial()
    base = made.results / "networks" / "tiny" / "weights.safetensors"
    network = build(made.networks["tiny"])
    weights.save(base, network, origin(made, "tiny"))
    path = made.results / "networks" / "half" / "weights.safetensors"

    def written() -> bytes:
        step.run(made, "half")
        return path.read_bytes()

    assert written() == written()
    turn(network, made.dials["half"])
    state = weights.load(path, origin(made, "half"))
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    weights.save(base, network, "other")
    with pytest.raises(OdmError, match="trained under other settings"):
        step.run(made, "half")


# Table and figure

PSNR = {
    "tiny": 36.0, "half": 36.0, "full": 36.0,
    "tiny_plain_1": 35.0, "tiny_odm_1": 35.1, "tiny_odm_2": 35.1, "tiny_per_channel_1": 35.2,
    "half_plain_1": 34.0, "half_odm_1": 34.7, "half_odm_2": 34.9, "half_per_channel_1": 35.1,
    "full_plain_1": 33.0, "full_odm_1": 32.9, "full_odm_2": 32.9, "full_per_channel_1": 35.0,
}  # fmt: skip


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    made = with_dial()
    for name, value in PSNR.items():
        write(made, name, [value] * 3)
    return made


def test_table(made: Settings) -> None:
    text, frame = read(made)
    assert cells(text, "scale of tiny x2 on photos") == [
        ["0", "tiny", "36.0000", "plain", "32/3", "1", "35.00", "", ""],
        ["0", "tiny", "36.0000", "odm", "32/3", "2", "35.10 ± 0.00", "", ""],
        ["0", "tiny", "36.0000", "per_channel", "32/3", "1", "35.20", "", ""],
        ["1.5", "half", "36.0000", "plain", "32/3", "1", "34.00", "+1.00", ""],
        ["1.5", "half", "36.0000", "odm", "32/3", "2", "34.80 ± 0.14", "+0.30", "80%"],
        ["1.5", "half", "36.0000", "per_channel", "32/3", "1", "35.10", "+0.10", "110%"],
        ["3", "full", "36.0000", "plain", "32/3", "1", "33.00", "+2.00", ""],
        ["3", "full", "36.0000", "odm", "32/3", "2", "32.90 ± 0.00", "+2.20", "-5%"],
        ["3", "full", "36.0000", "per_channel", "32/3", "1", "35.00", "+0.20", "100%"],
    ]
    assert "## half" not in text, "dials have no table as networks have"
    row = frame[(frame.network == "half") & (frame.method == "odm")].iloc[0]
    assert (row.base, row.dial, row.strength) == ("tiny", "scale", "1.5")
    assert (row.dial_loss, row.recovered) == ("0.3000", "0.8000")
    assert set(frame[frame.network == "tiny"].strength) == {"0.0"}
    assert set(frame[frame.network == "tiny"].base) == {""}


def test_a_share_has_an_error_bar_from_seeds_where_plain_has_them_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed by seed, since they share their patches: what both gain or lose by it is no uncertainty of the share."""
    monkeypatch.chdir(tmp_path)
    runs = {
        f"{network}_{method}_{seed}": {
            "network": network,
            "method": method,
            "weight_bits": 32,
            "activation_bits": 3,
            "seed": seed,
        }
        for network in ("tiny", "half")
        for method in ("plain", "odm")
        for seed in (1, 2)
    }
    made = with_dial(dials={"half": {"network": "tiny", "strength": 1.5}}, runs=runs)
    for name, value in {"tiny": 36.0, "half": 36.0, "tiny_plain_1": 35.0, "tiny_plain_2": 35.4}.items():
        write(made, name, [value] * 3)
    write(made, "tiny_odm_1", [35.0] * 3)
    write(made, "tiny_odm_2", [35.4] * 3)
    for seed, (plain, odm) in {1: (34.0, 34.5), 2: (34.4, 35.1)}.items():
        write(made, f"half_plain_{seed}", [plain] * 3)
        write(made, f"half_odm_{seed}", [odm] * 3)
    text, frame = read(made)
    row = frame[(frame.network == "half") & (frame.method == "odm")].iloc[0]
    assert (row.recovered, row.recovered_spread) == ("0.6000", "0.1414")
    assert cells(text, "scale of tiny x2 on photos")[-1][-1] == "60% ± 14%"


def test_a_dial_that_takes_nothing_gives_no_share(made: Settings) -> None:
    write(made, "half_plain_1", [34.96] * 3)
    _, frame = read(made)
    assert set(frame[frame.network == "half"].recovered) == {""}


@pytest.mark.parametrize("removed", ["half_plain_1", "half_odm_2", "tiny_plain_1", "half"])
def test_missing_runs_are_marked_in_the_table(made: Settings, removed: str) -> None:
    (results.folder(made, removed) / "metrics.json").unlink()
    text, frame = read(made)
    assert f"{removed}`" in text
    assert "nan" not in text
    assert "None" not in text
    assert len(cells(text, "scale of tiny x2 on photos")) == 9, "never dropped"
    row = frame[(frame.network == "half") & (frame.method == "odm")].iloc[0]
    assert (row.recovered == "") == (removed != "half")


def test_no_dial_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text, frame = read(settings())
    assert "dial" not in text
    assert set(frame.strength) == set(frame.dial_loss) == {""}


def test_figure(made: Settings) -> None:
    drawn = figure.draw(results.read(made))
    (axes,) = drawn.axes
    lines = {each.get_label(): each.lines[0] for each in axes.containers}
    assert list(lines) == ["plain", "odm", "per_channel"]
    assert list(lines["plain"].get_xdata()) == [0.0, 1.5, 3.0]
    assert list(lines["plain"].get_ydata()) == [35.0, 34.0, 33.0]
    assert list(lines["odm"].get_ydata()) == pytest.approx([35.1, 34.8, 32.9])
    assert list(axes.lines[0].get_ydata()) == [36.0] * 3, "float"
    assert "tiny, scale, float weights and A3, on photos" in texts(drawn)


def test_figure_of_unfinished_runs(made: Settings) -> None:
    (results.folder(made, "half_odm_2") / "metrics.json").unlink()
    drawn = figure.draw(results.read(made))
    assert "not finished: half_odm_2" in texts(drawn)
    odm = next(each for each in drawn.axes[0].containers if each.get_label() == "odm")
    assert list(odm.lines[0].get_xdata()) == [0.0, 3.0]
    for name in PSNR:
        (results.folder(made, name) / "metrics.json").unlink(missing_ok=True)
    assert "nothing is finished" in texts(figure.draw(results.read(made)))


def test_figure_without_dials_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no run of this suite is of a network that a dial has turned" in texts(figure.draw(results.read(settings())))
