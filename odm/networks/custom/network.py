"""A network of the user's own: a module from a Python file, with weights that were trained elsewhere."""

import sys
import traceback
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from odm.errors import OdmError, nearest
from odm.files import of_user
from odm.networks.backbone import Backbone, Placement, reflected
from odm.networks.given import fit, read

# Low-resolution height and width of the image that a network is tried on: odd, and not square.
PROBE = (17, 24)


class Custom(Backbone):
    """The user's network as a Backbone. Every coverage is the layers that the settings list.

    All the rest of the code relies on is tried once, on a small image; what is wrong is an OdmError of one line.
    """

    def __init__(
        self,
        module: str,
        build: str,
        arguments: Mapping[str, Any],
        layers: Sequence[str],
        value_range: str,
        features: str,
        multiple: int,
        scale: int,
        digest: str | None = None,  # of concern to the settings
    ) -> None:
        super().__init__()
        self.scale = scale
        self.multiple = multiple
        self.file = of_user("module", module)
        self.name = build
        self.white = {"0-1": 1.0, "0-255": 255.0}[value_range]
        self.before_upsampler = features
        self.network = _built(self.file, build, arguments)
        if not any(each.requires_grad for each in self.network.parameters()):
            raise OdmError(
                f"{self.file}: every parameter of {self.name} is frozen, so nothing can be trained; leave "
                "`requires_grad` true where it should learn"
            )
        self.layers = self._layers(layers)
        # As networks are run here: what cannot bear it should fail now.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.try_out()

    def forward(self, x: Tensor) -> Tensor:
        height, width = (self.scale * side for side in x.shape[2:])
        y = self.network(reflected(x, self.multiple) * (self.white / 255))
        return y[:, :, :height, :width] * (255 / self.white)

    @property
    def features(self) -> nn.Module:  # type: ignore[override]
        """The module whose output enters the upsampler."""
        try:
            return self.network.get_submodule(self.before_upsampler)
        except AttributeError:
            raise OdmError(
                f"{self.file}: {self.name} has no module '{self.before_upsampler}'; methods that distil need "
                "`features`, the name of the module whose output enters the upsampler"
            ) from None

    def placement(self, coverage: str) -> Placement:
        """The same for every coverage: a network that is not ours has but the layers that were named."""
        return Placement(list(self.layers))

    def without_body(self) -> None:
        raise OdmError(f"no_body: {self.name} of {self.file} names no blocks to leave out; take those runs out")

    def _layers(self, patterns: Sequence[str]) -> list[str]:
        """Names, from here, of the layers that names and patterns choose, in the order of the network."""
        modules = dict(self.network.named_modules(remove_duplicate=False))
        del modules[""]
        chosen: set[str] = set()
        excluded: set[str] = set()
        for written in patterns:
            pattern = written.removeprefix("!")
            matched = [name for name in modules if fnmatchcase(name, pattern)]
            fit = [name for name in matched if isinstance(modules[name], nn.Conv2d | nn.Linear)]
            if not matched:
                layers = [name for name, each in modules.items() if isinstance(each, nn.Conv2d | nn.Linear)]
                raise OdmError(f"{self.file}: layers: '{written}' is nothing in {self.name}{nearest(pattern, layers)}")
            if not fit:
                kind = type(modules[matched[0]]).__name__
                raise OdmError(
                    f"{self.file}: layers: '{written}' is a {kind} ('{matched[0]}'); "
                    "Conv2d and Linear alone can be quantized"
                )
            (chosen if written == pattern else excluded).update(fit)
        chosen -= excluded  # wherever in the list they stand
        if not chosen:
            raise OdmError(
                f"{self.file}: layers: none is left of {self.name}; name some that no pattern with ! takes out"
            )
        for name in sorted(chosen):
            same = [other for other, module in modules.items() if module is modules[name] and other != name]
            if same:
                raise OdmError(
                    f"{self.file}: layers: '{name}' is also '{same[0]}': one module in two places; "
                    "give each place its own"
                )
            if why := _why_not(modules[name]):
                raise OdmError(f"{self.file}: layers: '{name}' {why}, which its quantized form would lose")
        places: dict[int, str] = {}
        for key, value in self.network.state_dict().items():
            other = places.setdefault(value.untyped_storage().data_ptr(), key) if value.numel() else key
            if other != key:
                raise OdmError(f"{self.file}: '{other}' and '{key}' are one tensor; give each module its own")
        return [f"network.{name}" for name in modules if name in chosen]

    @torch.no_grad()
    def try_out(self) -> Tensor:
        """The network's output for a small image, if it is of the right size and each layer ran once."""
        height, width = PROBE
        low = torch.linspace(0, 255, 3 * height * width).view(1, 3, height, width)
        runs = dict.fromkeys(self.layers, 0)

        def count(name: str) -> None:
            runs[name] += 1

        handles = [
            self.get_submodule(name).register_forward_hook(lambda *_, name=name: count(name)) for name in self.layers
        ]
        training = self.training
        self.eval()
        whole = reflected(low, self.multiple).contiguous(memory_format=torch.channels_last) * (self.white / 255)
        try:
            output = self.network(whole)
        except Exception as error:
            if _takes(self.network, whole[:, :1]):
                raise OdmError(
                    f"{self.file}: {self.name} takes images of one channel, and gets three (RGB); have {self.name} "
                    "enlarge each of the three as an image of its own, or their luma"
                ) from None
            raise OdmError(
                f"{_told(error, self.file)} (on an image of {whole.shape[2]} x {whole.shape[3]}; "
                "if sides must be multiples of a number, set `multiple`)"
            ) from None
        finally:
            self.train(training)
            for handle in handles:
                handle.remove()
        if not isinstance(output, Tensor):
            raise OdmError(f"{self.file}: {self.name} returns a {type(output).__name__}; it should return the image")
        expected = (1, 3, self.scale * whole.shape[2], self.scale * whole.shape[3])
        if tuple(output.shape) != expected:
            raise OdmError(
                f"{self.file}: {self.name} makes {tuple(output.shape)} of {tuple(whole.shape)}; "
                f"with scale {self.scale} it should make {expected}"
            )
        for name, times in runs.items():
            if times != 1:
                short = name.removeprefix("network.")
                advice = (
                    f"give each call a copy of its own, in {self.file.name} and in the weights, since a quantized "
                    "layer has one range"
                    if times
                    else f"it does nothing, or its weights are used without it: take it out of `layers` ('!{short}')"
                )
                raise OdmError(f"{self.file}: layers: '{short}' runs {times} times in a forward pass; {advice}")
        return output

    def take(self, file: Path) -> None:
        fit(self.network, file, read(file), self.name, "look at `arguments`")
        if not self.try_out().isfinite().all():
            raise OdmError(f"{file}: {self.name} makes values that are not finite of an image; look at `value_range`")


def _built(file: Path, name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """What a class or function of a Python file makes of the arguments."""
    module = ModuleType(f"odm_custom_{file.stem}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # where dataclasses look
    try:
        # Not imported, so that no compiled file is left beside it and none that is stale is taken.
        exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)
    except FileNotFoundError:
        raise OdmError(f"{file}: no such file; correct `module`") from None
    except OSError as error:
        raise OdmError(f"{file}: cannot be read: {error.strerror or error}") from None
    except Exception as error:
        raise OdmError(_told(error, file)) from None
    make = getattr(module, name, None)
    if not callable(make):
        there = [
            key
            for key, each in vars(module).items()
            if callable(each) and getattr(each, "__module__", None) == module.__name__
        ]
        raise OdmError(f"{file}: no class or function '{name}'{nearest(name, there)}")
    try:
        network = make(**arguments)
    except Exception as error:
        raise OdmError(f"{_told(error, file)} (from {name} with the `arguments` of the settings)") from None
    if not isinstance(network, nn.Module) or not list(network.parameters()):
        raise OdmError(f"{file}: {name} makes no torch module with parameters")
    return network


def _why_not(layer: nn.Module) -> str | None:
    """What a quantized layer, which takes a convolution's weights and does its own arithmetic, cannot keep."""
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        return f"pads by '{layer.padding_mode}'"
    kind = nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Linear
    if type(layer).forward is not kind.forward or getattr(type(layer), "_conv_forward", None) is not getattr(
        kind, "_conv_forward", None
    ):
        return f"is a {type(layer).__name__} with a forward pass of its own"
    return "has hooks (of weight_norm or the like)" if layer._forward_pre_hooks or layer._forward_hooks else None


def _takes(network: nn.Module, x: Tensor) -> bool:
    try:
        network(x)
    except Exception:
        return False
    return True


def _told(error: Exception, file: Path) -> str:
    """What went wrong in the user's code, in one line, and in which line of it."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    if isinstance(error, SyntaxError):
        lines.append(error.lineno)
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    where = f"{file}, line {lines[-1]}" if lines else str(file)
    return f"{where}: {type(error).__name__}: {said.strip().splitlines()[0] if said.strip() else 'no message'}"
