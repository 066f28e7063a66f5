"""An exported model as what enlarges photographs: in a stock runtime, or the integer form itself."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from odm.deploy import packed
from odm.deploy.bundle import AGAIN, read_model
from odm.deploy.extra import need
from odm.deploy.runtimes import VNNI, lacks_vnni, runtimes
from odm.errors import OdmError
from odm.networks.backbone import Backbone, reflected
from odm.networks.build import build
from odm.networks.reach import reach

Values = NDArray[np.float32]
SUFFIXES = (".onnx", packed.SUFFIX)


class OfFile:
    """An ONNX file of `odm export` in the first runtime that is installed. OdmError if it is missing, damaged
    or another's, or if there is no runtime."""

    def __init__(self, path: Path) -> None:
        need("onnx")
        model = read_model(path)
        said = {each.key: each.value for each in model.metadata_props}
        try:
            self.scale, self.multiple = int(said["odm.scale"]), int(said["odm.multiple"])
            self.halo = int(said["odm.halo"]) if said["odm.halo"] else None
            needs_vnni = said["odm.needs"] == "vnni"
        except (KeyError, ValueError):
            raise OdmError(f"{path}: an ONNX model, but none of `odm export` as it is now; {AGAIN}") from None
        if needs_vnni and lacks_vnni():
            raise OdmError(
                f"{path}: its 8-bit sums would be clipped to 16 bits on this processor, which has none of "
                f"{', '.join(VNNI)}; take a processor that has one, or {path.with_suffix(packed.SUFFIX)}"
            )
        runtime = next(iter(runtimes()), None)
        if runtime is None:
            raise OdmError("neither onnxruntime nor openvino is installed; `pip install 'odm-sr[deploy]'` brings both")
        self.name = f"{path} in {runtime.name}"
        self.session = runtime.open(model.SerializeToString())

    def __call__(self, pixels: Values) -> Values:
        """(H, W, 3) in 0-255 to (scale H, scale W, 3), neither rounded nor clipped."""
        height, width = pixels.shape[:2]
        x = reflected(torch.from_numpy(pixels).permute(2, 0, 1)[None], self.multiple).contiguous()
        (output,) = self.session.run(x.numpy()).values()
        if not np.isfinite(output).all():
            raise OdmError(f"{self.name}: the output is not finite: the file is broken; {AGAIN}")
        return np.ascontiguousarray(output[0, :, : self.scale * height, : self.scale * width].transpose(1, 2, 0))


def integer(path: Path) -> tuple[Backbone, int | None]:
    """The integer form of a packed file, and its reach: that of the network it was made of."""
    model, form = packed.read(path)
    return form, reach(build(model.network))
