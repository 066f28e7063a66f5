"""A training step of `plain` beside those of other libraries' fake quantizers, on one network in one process.

    python benchmarks/peers.py [--channels 32] [--blocks 8] [--scale 2] [--batch 8] [--patch 24] [--rounds 30]

The first call makes an environment, .venv-peers, of this torch, brevitas and what our networks import, and the script
runs itself there: nothing of it reaches our own. Every peer quantizes weights and inputs of the same layers at W2A2
with one range a tensor. It is CPU time on one thread, kinds in turn, ratios medians over rounds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import venv
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from steps import now, ratio, stepper
from torch import Tensor, nn
from torch.ao.quantization import FusedMovingAvgObsFakeQuantize, MovingAverageMinMaxObserver
from torch.ao.quantization._learnable_fake_quantize import _LearnableFakeQuantize

from odm.networks.build import build
from odm.networks.device import cpu_name, placed
from odm.networks.edsr.settings import Edsr
from odm.quantization.layer import QuantizedLayer
from odm.quantization.quantizer import LearnedRange, WeightQuantizer

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".venv-peers"
BITS = 2
# A range that activations and weights lie in; what it is has no part in the time.
BOUND = 100.0


class Composed(nn.Module):
    """Eq. 1 of elementwise operations, as autograd differentiates them; a straight-through round."""

    def __init__(self, learns: bool) -> None:
        super().__init__()
        self.lower, self.upper = (nn.Parameter(torch.tensor(each)) for each in (-BOUND, BOUND)) if learns else (0, 0)
        self.learns = learns

    def forward(self, x: Tensor) -> Tensor:
        upper = self.upper if self.learns else x.detach().abs().amax()
        lower = self.lower if self.learns else -upper
        step = (upper - lower) / (2**BITS - 1)
        value = (torch.clamp(x, lower, upper) - lower) / step
        return (value + (value.round() - value).detach()) * step + lower


def learnable(symmetric: bool) -> nn.Module:
    """torch.ao's fake quantization with a learned scale and zero point."""
    least = -(2 ** (BITS - 1)) if symmetric else 0
    made = _LearnableFakeQuantize(
        MovingAverageMinMaxObserver,
        quant_min=least,
        quant_max=least + 2**BITS - 1,
        scale=BOUND / 2**BITS,
        use_grad_scaling=True,
        dtype=torch.qint8 if symmetric else torch.quint8,
        qscheme=torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine,
    )
    return made.enable_param_learning()


def moving_average(symmetric: bool) -> nn.Module:
    """torch.ao's fused observer and fake quantization: ranges follow the batches, nothing is learned."""
    least = -(2 ** (BITS - 1)) if symmetric else 0
    return FusedMovingAvgObsFakeQuantize(
        observer=MovingAverageMinMaxObserver,
        quant_min=least,
        quant_max=least + 2**BITS - 1,
        dtype=torch.qint8 if symmetric else torch.quint8,
        qscheme=torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine,
    )


def brevitas(layer: nn.Conv2d, learned: bool) -> nn.Module:
    """brevitas' own quantized convolution, its weights scaled by their largest; inputs by a learned scale, which starts
    from the batches, or by a percentile of each batch."""
    from brevitas.inject.enum import ScalingImplType
    from brevitas.nn import QuantConv2d
    from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat

    made = QuantConv2d(
        layer.in_channels,
        layer.out_channels,
        3,
        padding=1,
        weight_quant=Int8WeightPerTensorFloat,
        input_quant=Int8ActPerTensorFloat,
        weight_bit_width=BITS,
        input_bit_width=BITS,
        input_scaling_impl_type=ScalingImplType.PARAMETER_FROM_STATS if learned else ScalingImplType.STATS,
        **({"input_collect_stats_steps": 2} if learned else {}),
    )
    made.load_state_dict(layer.state_dict(), strict=False)
    return made


def ours(layer: nn.Conv2d) -> nn.Module:
    activation = LearnedRange(BITS)
    activation.set_range(-BOUND, BOUND)
    return QuantizedLayer(layer, activation, WeightQuantizer(BITS))


PLAIN = "ours (quantizer of `plain`)"
KINDS: dict[str, Callable[[nn.Conv2d], nn.Module] | None] = {
    PLAIN: ours,
    "float": None,
    "composed autograd of Eq. 1": lambda layer: QuantizedLayer(layer, Composed(True), Composed(False)),
    "torch.ao `FusedMovingAvgObsFakeQuantize`": lambda layer: QuantizedLayer(
        layer, moving_average(False), moving_average(True)
    ),
    "torch.ao `_LearnableFakeQuantize`": lambda layer: QuantizedLayer(layer, learnable(False), learnable(True)),
    "brevitas, learned scales": lambda layer: brevitas(layer, learned=True),
    "brevitas, scales from statistics": lambda layer: brevitas(layer, learned=False),
}


def peer(make: Callable[[nn.Conv2d], nn.Module] | None, options: argparse.Namespace) -> Callable[[], None]:
    """A whole step of EDSR with the layers of its blocks made over: forward, backward, optimizer."""
    torch.manual_seed(0)
    settings = Edsr(backbone="edsr", channels=options.channels, blocks=options.blocks, scale=options.scale)
    network = build(settings)
    if make:
        for name in network.placement("blocks").layers:
            network.set_submodule(name, make(network.get_submodule(name)))
    network = placed(network, torch.device("cpu")).train()
    low = torch.rand(options.batch, 3, options.patch, options.patch).mul(255)
    low = low.contiguous(memory_format=torch.channels_last)
    high = torch.rand(options.batch, 3, *(options.patch * options.scale,) * 2).mul(255)
    optimizer = torch.optim.Adam(network.parameters())

    def step() -> None:
        optimizer.zero_grad()
        (network(low) - high).abs().mean().backward()
        optimizer.step()

    return step


def environment() -> Path:
    """The interpreter of the peers' environment, made where there is none."""
    python = PEERS / "bin" / "python"
    if not (PEERS / "installed").exists():
        venv.create(PEERS, clear=True, with_pip=True)
        exact = f"torch=={torch.__version__.split('+')[0]}"
        (PEERS / "constraints.txt").write_text(exact + "\n")  # brevitas must not bring another one
        pip = [python, "-m", "pip", "install", "--quiet", "--constraint", PEERS / "constraints.txt"]
        subprocess.run([*pip, "torch", "numpy", "pydantic", "safetensors", "brevitas"], check=True)
        (PEERS / "installed").touch()
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"channels": 32, "blocks": 8, "scale": 2, "batch": 8, "patch": 24, "rounds": 30}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if Path(sys.prefix) != PEERS:
        found = os.environ | {"PYTHONPATH": str(ROOT)}
        sys.exit(subprocess.run([environment(), *sys.argv], env=found, check=False).returncode)
    options.device = "cpu"
    # `odm train` of `plain` itself, which also sets threads and vectors.
    steps = {"`plain`, as trained": stepper("plain", options)}
    steps |= {kind: peer(make, options) for kind, make in KINDS.items()}
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    for round_ in range(options.rounds + 5):
        for kind, step in steps.items():
            began = now("cpu")
            step()
            if round_ >= 5:  # the first ones set up kernels and memory, and brevitas gathers statistics
                seconds[kind].append(now("cpu") - began)
    print(
        f"EDSR {options.channels} x {options.blocks}, x{options.scale}, batch {options.batch}, LR patch {options.patch}"
    )
    print(f"{cpu_name()}, 1 thread, CPU time, torch {torch.__version__}, brevitas {version('brevitas')}, W2A2\n")
    print("| step | ms (median) | over `plain` |\n|:--|--:|--:|")
    base = next(iter(seconds.values()))
    for kind, each in seconds.items():
        print(f"| {kind} | {statistics.median(each) * 1e3:.1f} | {ratio(each, base):.2f} |")


if __name__ == "__main__":
    main()
