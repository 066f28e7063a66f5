"""Float networks that others trained, known by name: which file they are, whose, and what they score.

Only data, and light to import, as the settings and the cards of jobs look in here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from odm.transfer import Source


@dataclass(frozen=True)
class Ready:
    """The published weights of one network."""

    network: Mapping[str, Any]
    """What the settings of a network that takes them have to say."""
    file: str
    """As it is called where it was published."""
    sha256: str
    """Of the file; its beginning, where no more is known."""
    trained_by: str
    terms: str
    score: str
    """PSNR (dB) / SSIM of the float network, and whose figures they are."""
    urls: tuple[str, ...] = ()
    """None where the file may not be had from anywhere as it is."""
    size: int | None = None
    """Bytes."""

    @property
    def source(self) -> Source:
        return Source(self.urls, f"sha256:{self.sha256}", self.size)


def _mlcommons(channels: int, sha256: str, size: int, psnr_ssim: str) -> Ready:
    """EDSR for phones, of MLPerf Mobile's super-resolution task."""
    file = f"edsr_f{channels}b5_fp32.tflite"
    return Ready(
        network={"backbone": "edsr", "channels": channels, "blocks": 5, "scale": 2, "upsampler": "pixelshuffledirect"},
        file=file,
        sha256=sha256,
        trained_by="the authors of EDSR, on DIV2K, for MLCommons",
        terms="Apache-2.0",
        score=f"Set5 {psnr_ssim}, scored by this project",
        urls=(
            f"https://github.com/mlcommons/mobile_models/raw/56168f591483b6d9e3b6452c01e40c3c160fe623/v3_0/tflite/{file}",
        ),
        size=size,
    )


_BASELINE = {"backbone": "edsr", "channels": 64, "blocks": 16, "scale": 4}

READY: dict[str, Ready] = {
    "edsr_f32b5_x2": _mlcommons(
        32, "8ba40b3f28dd11435188b528c6cac107ddd7f7eb52099caa0401b4e5138676e2", 436084, "37.38 / 0.9582"
    ),
    "edsr_f64b5_x2": _mlcommons(
        64, "fbd355e28bf75a2ce22ce5ac78b28c5def5a09cb0b3e43907277fdd42c2308dd", 1671412, "37.65 / 0.9592"
    ),
    # EDSR's own file has another digest and other names; its name ends in the beginning of its digest.
    "edsr_baseline_x4": Ready(
        network=_BASELINE,
        file="edsr_baseline_x4-6b446fab.pt",
        sha256="6b446fab",
        trained_by="the authors of EDSR, on DIV2K",
        terms="none stated",
        score="Set5 32.10 / 0.894, as DAQ's authors print it",
        urls=("https://cv.snu.ac.kr/research/EDSR/models/edsr_baseline_x4-6b446fab.pt",),
    ),
    "edsr_baseline_x4_krasserm": Ready(
        network=_BASELINE,
        file="edsr_baseline_x4.safetensors",
        sha256="f85d77a73feb627dbe86d15c21a3e31187809b02938efe74c9a28db5d483d7f5",
        trained_by="krasserm/super-resolution, on DIV2K, 300,000 steps; rounded to 8 bits a channel by others",
        terms="research; not to be passed on",
        score="Set5 32.04 / 0.8930, scored by this project",
    ),
}
