"""Cost of a training step: quantization-aware over float, ODM and the rivals over plain; and peak memory.

    python benchmarks/steps.py [--channels 32] [--blocks 4] [--scale 2] [--batch 8] [--patch 24] [--rounds 30]
    python benchmarks/steps.py --device cuda --channels 64 --blocks 16 --scale 4 --patch 48    # the paper's EDSR

On a CPU it is CPU time on one thread, on a GPU time until the card has finished. The kinds of step are timed in turn,
round after round, and ratios are medians over rounds: a busy neighbour slows both sides of a ratio. Peak memory is
that of a process of its own for each kind, less that of one that only builds the network.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch

from odm.methods.build import method_class
from odm.methods.daq.settings import Daq
from odm.methods.ddtb.settings import Ddtb
from odm.methods.odm.settings import Odm
from odm.methods.odm_eccv.settings import OdmEccv
from odm.methods.pams.settings import Pams
from odm.methods.per_channel.settings import PerChannel
from odm.methods.plain.settings import Plain
from odm.networks.build import build
from odm.networks.device import cpu_name, placed, set_vectors
from odm.networks.edsr.settings import Edsr
from odm.quantization.statistics import measured
from odm.settings.training import Cooperation, Run

METHOD_SETTINGS = {
    "plain": Plain(kind="plain"),
    "odm": Odm(kind="odm"),
    "odm_eccv": OdmEccv(kind="odm_eccv"),
    "per_channel": PerChannel(kind="per_channel"),
    "pams": Pams(kind="pams"),
    "daq": Daq(kind="daq"),
    "ddtb": Ddtb(kind="ddtb"),
    "odm, every 4": Odm(kind="odm", cooperation=Cooperation(every=4)),
}
KINDS = ("float", *METHOD_SETTINGS)
AFTER_ALL_PHASES = 1_000_000
# Steps that are timed together: not all of them are alike.
CYCLE = 4


def stepper(
    kind: str, options: argparse.Namespace, vectors: str = "avx2", precision: str = "float32", compiled: bool = False
) -> Callable[[], None]:
    """A whole training step of a kind: forward, backward, optimizer."""
    set_vectors(vectors)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    settings = Edsr(backbone="edsr", channels=options.channels, blocks=options.blocks, scale=options.scale)
    network = placed(build(settings), torch.device(options.device))
    low = (
        torch.rand(options.batch, 3, options.patch, options.patch)
        .mul(255)
        .to(options.device)
        .contiguous(memory_format=torch.channels_last)
    )
    high = torch.rand(options.batch, 3, *(options.patch * options.scale,) * 2).mul(255).to(options.device)
    if kind == "float":
        optimizer = torch.optim.Adam(network.parameters())
        method = None
    else:
        layers = measured(network, network.placement("body").layers, [low], percentile=99)
        run = Run(network="n", method=kind, weight_bits=2, activation_bits=2)
        method = method_class(METHOD_SETTINGS[kind].kind)(network, METHOD_SETTINGS[kind], run)
        method.prepare(layers, [low])
        network.to(options.device)
        method.watch()
        optimizer = torch.optim.Adam(network.parameters())

    # Buffers of a compiled graph must last for a second gradient, as in odm/training/loop.py.
    torch._functorch.config.donated_buffer = False
    forward = torch.compile(network) if compiled else network

    steps = count(AFTER_ALL_PHASES)

    def step() -> None:
        if method is not None:
            method.begin(next(steps))
        optimizer.zero_grad()
        with torch.autocast(low.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            output = forward(low)
        loss = (output - high).abs().mean()
        if method is None:
            loss.backward()
            optimizer.step()
        else:
            method.backward(loss)
            optimizer.step()
            method.settle()

    return step


def peak_memory(kind: str, steps: int, options: argparse.Namespace, answers) -> None:
    """Peak resident memory of a process that makes some steps, in MiB."""
    step = stepper(kind, options)
    for _ in range(steps):
        step()
    if options.device != "cpu":
        answers.put(torch.cuda.max_memory_allocated(options.device) / 2**20)
        return
    # Not getrusage: its peak outlives exec, so a child starts from that of the process that bore it.
    status = Path("/proc/self/status").read_text().splitlines()
    answers.put(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024)


def in_process_of_its_own(kind: str, steps: int, options: argparse.Namespace) -> float:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=peak_memory, args=(kind, steps, options, answers))
    process.start()
    answer = answers.get()
    process.join()
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"channels": 32, "blocks": 4, "scale": 2, "batch": 8, "patch": 24, "rounds": 30}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="beside float and plain")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    kinds = [kind for kind in KINDS if kind in ("float", "plain", *options.kinds)]
    steps = {kind: stepper(kind, options) for kind in kinds}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for round_ in range(options.rounds + 3):
        for kind, step in steps.items():
            began = now(options.device)
            for _ in range(CYCLE):
                step()
            if round_ >= 3:  # the first ones set up kernels and memory
                seconds[kind].append((now(options.device) - began) / CYCLE)
    memory = {
        kind: in_process_of_its_own(kind, 5, options) - in_process_of_its_own(kind, 0, options)
        for kind in (kinds if options.memory else [])
    }

    print(
        f"EDSR {options.channels} x {options.blocks}, x{options.scale}, batch {options.batch}, LR patch {options.patch}"
    )
    where = (
        f"{cpu_name()}, 1 thread, CPU time" if options.device == "cpu" else torch.cuda.get_device_name(options.device)
    )
    print(f"{where}, torch {torch.__version__}, {options.rounds} rounds, W2A2\n")
    print("| step | ms (median) | over float | over plain | peak memory over the built network, MiB |")
    print("|---|---|---|---|---|")
    for kind in kinds:
        over_float, over_plain = (ratio(seconds[kind], seconds[base]) for base in ("float", "plain"))
        median = statistics.median(seconds[kind]) * 1e3
        peak = f"{memory[kind]:.0f}" if memory else ""
        print(f"| {kind} | {median:.1f} | {over_float:.2f} | {over_plain:.2f} | {peak} |")


def now(device: str) -> float:
    """Seconds: of this process on a CPU, of the clock once all work is done on a GPU."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def ratio(seconds: list[float], base: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(seconds, base, strict=True))


if __name__ == "__main__":
    main()
