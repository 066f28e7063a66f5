"""The sets of images known by name, and where each comes from.

Only data, and light to import: the settings import the names, and so does every start of the command line.
"""

from dataclasses import dataclass

from odm.transfer import Source

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
"""Of the files that are images."""


@dataclass(frozen=True)
class PackagedImage:
    """One image inside an installed package."""

    file: str
    licence: str
    sha256: str
    """Of the decoded pixels, (H, W, 3) uint8: another version of the package may hold other ones."""


@dataclass(frozen=True)
class Packaged:
    """A set that comes inside an installed Python package: no download."""

    images: tuple[PackagedImage, ...]
    area: int
    """Pixels of all its images."""
    package: str = "skimage"
    folder: str = "data"
    distribution: str = "scikit-image"

    @property
    def terms(self) -> str:
        return "; ".join(f"{image.file}: {image.licence}" for image in self.images)


@dataclass(frozen=True)
class Download(Source):
    """An archive (zip, tar or tar.gz) that holds a set."""

    inside: str = ""
    """How the path of the set's folder ends within the archive; empty where it has one folder of images."""
    most: int = 1 << 30
    """How many bytes all that is in the archive may take; one that would unpack to more is refused."""
    otherwise: "Download | None" = None
    """Another archive that holds the set, for when no mirror of this one serves."""


@dataclass(frozen=True)
class Benchmark:
    """A published set: in a folder that the user has, or downloaded."""

    count: int
    """How many images it has; a folder with more or fewer is not this set."""
    terms: str
    layouts: tuple[str, ...]
    """Where it lies under a folder of data sets, in this order."""
    download: Download | None = None
    numbers: range | None = None
    """Where files are named by number: those that belong to the set."""
    only: str = "*"
    """Pattern of the names of those that belong to the set."""
    left_out: str = ""
    """Pattern of the names of those that are not to be used."""
    pixels: str | None = None
    """`odm.images.reading.set_digest` of its images, whatever they are called and whichever format they are kept in."""
    greys: frozenset[str] = frozenset()
    """SHA-256 of the pixels of those that have one channel; the others have three, be they equal."""
    area: int = 0
    """Pixels of all its images, to foresee what they take on disk; of DIV2K from its mean image, 1972 x 1437."""


def _benchmark_layouts(*names: str) -> tuple[str, ...]:
    """Each name as the benchmark archive of EDSR has it, then as a plain folder."""
    return tuple(pattern.format(name) for name in names for pattern in ("{}/HR", "benchmark/{}/HR", "{}_HR", "{}"))


def _berkeley(split: str) -> tuple[str, ...]:
    return tuple(f"{root}BSDS500/data/images/{split}" for root in ("", "BSR/"))


def _berkeley_download(split: str) -> Download:
    return Download(
        ("https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/BSR_bsds500.tgz",),
        inside=f"images/{split}",
        otherwise=Download(
            ("https://github.com/BIDS/BSDS500/archive/refs/heads/master.zip",), inside=f"images/{split}"
        ),
    )


def _benchmark_download(
    name: str, known_hash: str | None = None, *, edsr_name: str | None = None, otherwise: Download | None = None
) -> Download:
    return Download(
        (f"https://huggingface.co/datasets/eugenesiow/{name}/resolve/main/data/{name}_HR.tar.gz",),
        known_hash,
        otherwise=Download(
            ("https://cv.snu.ac.kr/research/EDSR/benchmark.tar",),
            "md5:4ace41d33c2384b97e6b320cd0afd6ba",
            inside=f"{edsr_name or name}/HR",
            otherwise=otherwise,
        ),
    )


def _div2k_download(split: str, size: int, sha256: str) -> Download:
    file = f"DIV2K_{split}_HR.zip"
    return Download(
        (
            f"https://data.vision.ee.ethz.ch/cvl/DIV2K/{file}",
            f"https://huggingface.co/datasets/eugenesiow/Div2k/resolve/main/data/{file}",
        ),
        f"sha256:{sha256}",
        size,
        # PNGs hardly shrink in a zip.
        most=size + size // 4,
    )


_BERKELEY_TERMS = "Berkeley: non-commercial research and education"
_DIV2K_TERMS = "academic research only"
_NO_TERMS = "research benchmark, none stated"
_CID22_TERMS = "CC BY-SA 4.0"
_CID22 = ("CID22_512", "train/CID22_512", "CID22")
_CID22_HELD = "pexels-photo-*"

CATALOGUE: dict[str, Packaged | Benchmark] = {
    # Left out of both: retina.jpg, two megapixels of which nearly all are smooth or black.
    "skimage_train": Packaged(
        (
            # A stereo pair, one scene from two places: never split over training and testing.
            PackagedImage(
                "motorcycle_left.png",
                "Middlebury 2014 stereo data, published for research, none stated",
                "ca829467c1d4f427da9c4862ba43829da6ac90afe1f75735e95dba9e3fd9620b",
            ),
            PackagedImage(
                "motorcycle_right.png",
                "Middlebury 2014 stereo data, published for research, none stated",
                "ae44d83f55e66623c7985499fd2f1685a56023e442e66eca89b3457dd46b17af",
            ),
            PackagedImage(
                "rocket.jpg",
                "public domain (SpaceX)",
                "3d4435cc745752b7f9724df88c6e18817de3ce7e3d2d71c55f85f7831e68f197",
            ),
            PackagedImage(
                "ihc.png",
                "no known copyright restrictions (Center for Microscopy and Molecular Imaging)",
                "c5b3ef509a92f16d4c29be8cf0300fe75d53e13a3ce650159db932caea8dcc1b",
            ),
            PackagedImage(
                "hubble_deep_field.jpg",
                "public domain (NASA)",
                "9a3ea9548188f81e63435188456e74de45a981ebeb791e265abe79a26d3b528b",
            ),
        ),
        area=2_148_424,
    ),
    "skimage_test": Packaged(
        (
            PackagedImage(
                "astronaut.png",
                "public domain (NASA)",
                "a8c429c18afa7b0fd5673e598d73a21225d94c864a71bbb3885126fdecb41071",
            ),
            PackagedImage(
                "chelsea.png",
                "CC0 (Stefan van der Walt)",
                "416b729128bfb2c3d1eb69bf9b1734a796293abc17939267b2dc94f8a5784031",
            ),
            PackagedImage(
                "coffee.png",
                "CC0 (Rachel Michetti)",
                "0ce2b51640b9c95f19617f03eabf40c3f0368589cc1ee1190b70966165ac184f",
            ),
        ),
        area=637_444,
    ),
    "set5": Benchmark(
        5,
        _NO_TERMS,
        _benchmark_layouts("Set5"),
        _benchmark_download("Set5"),
        pixels="8052ff9cc35454b9f9382513f53d725c60d342314788630f89f668e4011b083f",
        area=567_456,
    ),
    "set14": Benchmark(
        14,
        _NO_TERMS,
        _benchmark_layouts("Set14"),
        _benchmark_download("Set14"),
        pixels="46bfc089f9a189790eb879496e8f9fef36eb4edbbac88db27c75b3ff49f89ed3",
        area=3_222_840,
        greys=frozenset({"5dcb11614ab9734cbe24263b7abadf879df0c54a7b3b950de7f046d905fc4fa5"}),  # `bridge`
    ),
    # BSD100 is the `val` folder of BSDS500.
    "b100": Benchmark(
        100,
        _BERKELEY_TERMS,
        _benchmark_layouts("B100", "BSD100") + _berkeley("val"),
        _benchmark_download("BSD100", edsr_name="B100", otherwise=_berkeley_download("val")),
        pixels="f34884c4026a6d4a54f81deff8bdcae08dd625c8d91cea7c59bf5ee4e067c973",
        area=15_440_100,
    ),
    "urban100": Benchmark(
        100,
        "Creative Commons photographs of Flickr (Huang et al. 2015)",
        _benchmark_layouts("Urban100"),
        _benchmark_download("Urban100", "md5:65d9d84a34b72c6f7ca1e26a12df1e4c"),
        pixels="07622c27b936a343488516ce09eb0004fe8099d0cc68b68f2cc8aa8caa242baa",
        area=77_431_360,
    ),
    "div2k_train": Benchmark(
        800,
        _DIV2K_TERMS,
        ("DIV2K_train_HR", "DIV2K/DIV2K_train_HR", "train/DIV2K_train_HR", "DIV2K/train/HR"),
        _div2k_download("train", 3530603713, "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335"),
        # The layout of EDSR keeps the validation images in the same folder.
        numbers=range(1, 801),
        area=800 * 1972 * 1437,
    ),
    "div2k_valid": Benchmark(
        100,
        _DIV2K_TERMS,
        ("DIV2K_valid_HR", "DIV2K/DIV2K_valid_HR", "train/DIV2K_valid_HR", "DIV2K/valid/HR", "DIV2K/DIV2K_train_HR"),
        _div2k_download("valid", 448993893, "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc"),
        numbers=range(801, 901),
        area=100 * 1972 * 1437,
    ),
    "bsds500_train": Benchmark(
        199,
        _BERKELEY_TERMS,
        ("BSDS500_train", "train/BSDS500_train", *_berkeley("train")),
        _berkeley_download("train"),
        left_out="302003",  # Set5's `woman`
        pixels="6560eae32a1b2c64afdc3fd7f853dfa7867f7421030ac0585fa1e3188671247e",
        area=30_725_799,
    ),
    "bsds500_test": Benchmark(
        200,
        _BERKELEY_TERMS,
        ("BSDS500_test", "train/BSDS500_test", *_berkeley("test")),
        _berkeley_download("test"),
        pixels="5966f569d9aecc497be00c543b8635dcf713650dcbdd278ccffdf319737dcfa0",
        area=30_880_200,
    ),
    # Of one folder: what is trained on, and photographs held out for choosing settings.
    "cid22_train": Benchmark(
        212,
        _CID22_TERMS,
        _CID22,
        left_out=_CID22_HELD,
        pixels="2a602f6a412fc1f97415efc9af0343f1a4461e5bb173f54378e95b6486405788",
        area=212 * 512 * 512,
    ),
    "cid22_held": Benchmark(
        37,
        _CID22_TERMS,
        _CID22,
        only=_CID22_HELD,
        pixels="f41c793e1e40d07d21634ceaf1ee3d111133e12f72204f629701402d1cfc0311",
        area=37 * 512 * 512,
    ),
    "cid22": Benchmark(
        249,
        _CID22_TERMS,
        _CID22,
        pixels="d1c6a877dfdebc56d72af2247c914ed2e432c187e6a8998c649eea74ad3250e7",
        area=249 * 512 * 512,
    ),
}
