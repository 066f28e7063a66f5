import io
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image
from safetensors import safe_open

from odm.errors import OdmError
from odm.images.imresize import imresize
from odm.images.prepare import write
from odm.images.prepared import Prepared
from odm.settings.reading import load
from odm.settings.suite import Settings
from odm.steps import data

SUITE = Path(__file__).parent.parent / "suites" / "quick.yaml"


def noise(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


SETS = {"two": [("b", noise(33, 50, 3)), ("a", noise(41, 36, 3, seed=2))], "one": [("grey", noise(35, 37, seed=3))]}


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    path = tmp_path / "new" / "test.safetensors"
    write(path, SETS, [2, 3])
    return path


def test_what_is_written_is_read(prepared: Path) -> None:
    reader = Prepared(prepared, check=True)
    assert reader.images == [("two", "b"), ("two", "a"), ("one", "grey")]
    for index, (set_name, name) in enumerate(reader.images):
        image = dict(SETS[set_name])[name]
        assert np.array_equal(reader.hr(index), image)
        for scale in (2, 3):
            lr, hr = reader.pair(index, scale)
            height, width = (side // scale * scale for side in image.shape[:2])
            assert np.array_equal(hr, image[:height, :width])
            assert np.array_equal(lr, imresize(np.ascontiguousarray(hr), Fraction(1, scale)))
            assert lr.shape == (height // scale, width // scale, *image.shape[2:])


def test_views_of_the_file_not_copies(prepared: Path) -> None:
    lr, hr = Prepared(prepared).pair(0, 2)
    for view in (lr, hr):
        assert not view.flags.owndata
        assert not view.flags.writeable


def test_equal_content_gives_equal_bytes(prepared: Path, tmp_path: Path) -> None:
    write(tmp_path / "again", {name: iter(images) for name, images in SETS.items()}, [3, 2])
    assert (tmp_path / "again").read_bytes() == prepared.read_bytes()


def test_other_programs_can_read_it(prepared: Path) -> None:
    with safe_open(prepared, "np") as file:
        assert np.array_equal(file.get_tensor("hr/two/b"), SETS["two"][0][1])
        assert len(list(file.keys())) == 9


@pytest.mark.parametrize("kept", [0, 5, 100, 2000, -1])
def test_cut_short(prepared: Path, kept: int) -> None:
    prepared.write_bytes(prepared.read_bytes()[:kept])
    with pytest.raises(OdmError, match=r"test\.safetensors: damaged.*remove it and run `odm data test`"):
        Prepared(prepared)


def test_any_damaged_byte_of_the_header_or_a_pixel(prepared: Path) -> None:
    content = prepared.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    for place in (0, 7, 8, 20, start // 2, start, (start + len(content)) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 0x15
        prepared.write_bytes(damaged)
        with pytest.raises(OdmError, match="damaged"):
            Prepared(prepared, check=True)


def test_missing_file_and_scale(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(OdmError, match=r"train\.safetensors: no such file; run `odm data train`"):
        Prepared(tmp_path / "train.safetensors")
    with pytest.raises(OdmError, match=r"not prepared for x4; add 4 to images\.scales"):
        Prepared(prepared).pair(0, 4)


def test_nothing_half_written(tmp_path: Path) -> None:
    def images() -> Iterator[tuple[str, np.ndarray]]:
        yield "a", noise(20, 20, 3)
        raise OdmError("b.png: cannot be read")

    with pytest.raises(OdmError, match=r"b\.png"):
        write(tmp_path / "out" / "train.safetensors", {"mine": images()}, [2])
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ODM_IMAGES", raising=False)
    return load(SUITE)


def with_images(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update={"images": settings.images.model_copy(update=changes)})


def test_step_on_the_quick_suite(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    for split, count in (("train", 5), ("test", 3)):
        data.run(settings, split)
        path = settings.results / "data" / f"{split}.safetensors"
        said = capsys.readouterr().out
        assert said.count("\n") == 1
        for part in (split, f"{count} images", "megapixels", str(path)):
            assert part in said
        assert len(Prepared(path, check=True).images) == count
        first = path.read_bytes()
        data.run(settings, split)
        assert path.read_bytes() == first
        capsys.readouterr()


def test_step_refuses_an_image_both_trained_and_tested_on(settings: Settings, tmp_path: Path) -> None:
    for folder, seed in (("seen", 1), ("unseen", 2)):
        (tmp_path / folder).mkdir()
        Image.fromarray(noise(20, 20, 3, seed=seed)).save(tmp_path / folder / "a.png")
    Image.fromarray(noise(20, 20, 3, seed=2)).save(tmp_path / "seen" / "copy.bmp")
    folders = {name: str(tmp_path / name) for name in ("seen", "unseen")}
    both = with_images(settings, train=["seen"], test=["unseen"], folders=folders)
    with pytest.raises(OdmError, match="'a' of 'unseen' is also trained on, as 'copy' of 'seen'"):
        data.run(both, "test")
    assert not (both.results / "data" / "test.safetensors").exists()


def photograph() -> np.ndarray:
    return np.ascontiguousarray(skimage.data.coffee()[100:300, 200:460])


def put(folder: Path, name: str, image: np.ndarray | Image.Image, **options: object) -> None:
    folder.mkdir(exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(folder / name, **options)


def two_folders(settings: Settings, tmp_path: Path) -> Settings:
    folders = {name: str(tmp_path / name) for name in ("seen", "unseen")}
    return with_images(settings, train=["seen"], test=["unseen"], folders=folders)


SAVED = {
    "png": {},
    "webp": {"lossless": True},
    "bmp": {},
    "tif": {"compression": "tiff_lzw"},
    "tiff": {"compression": "raw"},
}


@pytest.mark.parametrize("first", data.SPLITS)
@pytest.mark.parametrize("suffix", SAVED)
@pytest.mark.parametrize(("seen", "unseen"), [("L", "RGB"), ("RGB", "L"), ("L", "LA"), ("P", "L"), ("RGBA", "1")])
def test_one_photograph_in_any_container_is_one_image(
    settings: Settings, tmp_path: Path, first: str, suffix: str, seen: str, unseen: str
) -> None:
    """Grey, colour, palette or opaque: whichever split is prepared first."""
    image = Image.fromarray(photograph()).convert("1" if "1" in (seen, unseen) else "L")
    for folder, mode, ending in (("seen", seen, suffix), ("unseen", unseen, "png")):
        if mode == "LA" or (mode, ending) != ("RGBA", "bmp"):
            put(tmp_path / folder, f"{folder}.{ending}", image.convert(mode), **SAVED[ending])
        else:
            put(tmp_path / folder, f"{folder}.{ending}", image.convert("RGB"))
    both = two_folders(settings, tmp_path)
    if first == "test":  # prepared before there was a copy of it to train on
        (tmp_path / "elsewhere").mkdir()
        put(tmp_path / "elsewhere", "other.png", noise(40, 40, 3))
        data.run(with_images(both, folders=both.images.folders | {"seen": str(tmp_path / "elsewhere")}), "test")
    else:
        data.run(both, "train")
    with pytest.raises(OdmError, match="'unseen' of 'unseen' is also trained on, as 'seen' of 'seen'; take it out"):
        data.run(both, "train" if first == "test" else "test")


def jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def again(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return again


def resized(share: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.resize((int(image.width * share), int(image.height * share)), Image.Resampling.BICUBIC)


def turned(
    how: Image.Transpose, then: Callable[[Image.Image], Image.Image] = Image.Image.copy
) -> Callable[[Image.Image], Image.Image]:
    return lambda image: then(image.transpose(how))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    **{f"jpeg {quality}": jpeg(quality) for quality in (95, 75, 50, 30)},
    **{f"resized {share}": resized(share) for share in (0.5, 0.7, 0.9, 1.5, 2.0)},
    **{how.name: turned(how) for how in Image.Transpose},
    **{f"{how.name} jpeg": turned(how, jpeg(60)) for how in Image.Transpose},
    "grey": lambda image: image.convert("L"),
    "palette": lambda image: image.quantize(64),
    "brighter": lambda image: image.point(lambda value: min(255, int(value * 1.1))),
    "one pixel": lambda image: Image.fromarray(np.vstack([np.asarray(image)[:-1], np.asarray(image)[-1:] // 2])),
}


@pytest.mark.parametrize("split", data.SPLITS)
@pytest.mark.parametrize("copy", COPIES)
def test_near_copies_are_warned_of(
    settings: Settings, tmp_path: Path, copy: str, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image = Image.fromarray(photograph())
    put(tmp_path / "seen", "mine.png", image)
    put(tmp_path / "unseen", "copy.png", COPIES[copy](image))
    put(tmp_path / "unseen", "other.png", skimage.data.astronaut()[:200, :200])
    for each in ("test", "train") if split == "train" else ("test",):
        capsys.readouterr()
        data.run(two_folders(settings, tmp_path), each)
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: images.test: 'copy' of 'unseen' looks like 'mine' of 'seen', which is")


def test_many_near_copies_are_counted(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "seen", "mine.png", photograph())
    for number in range(25):
        changed = photograph()
        changed[0, number] ^= 1
        put(tmp_path / "unseen", f"{number}.png", changed)
    data.run(two_folders(settings, tmp_path), "test")
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 21
    assert "5 more" in warnings[-1]


def flat(*colour: int) -> np.ndarray:
    return np.full(
        (40, 50, len(colour)) if len(colour) > 1 else (40, 50), colour if len(colour) > 1 else colour[0], np.uint8
    )


def framed(width: int) -> np.ndarray:
    """Of one colour but for a frame."""
    image = noise(42, 54, 3)
    image[width:-width, width:-width] = 7
    return image


@pytest.mark.parametrize(
    ("image", "is_refused"),
    [
        *[(flat(value), True) for value in (0, 1, 128, 255)],
        *[(flat(*colour), True) for colour in ((0, 0, 0), (255, 255, 255), (10, 200, 30))],
        *[(framed(width), width <= 3) for width in (1, 2, 3, 4, 5)],
        (noise(40, 50, 3), False),
    ],
)
def test_a_test_image_of_one_colour(settings: Settings, tmp_path: Path, image: np.ndarray, is_refused: bool) -> None:
    put(tmp_path / "unseen", "flat.png", image)
    put(tmp_path / "seen", "other.png", noise(40, 40, 3, seed=9))
    both = two_folders(settings, tmp_path)
    both = both.model_copy(update={"images": both.images.model_copy(update={"scales": [2, 3]})})
    if is_refused:
        with pytest.raises(OdmError, match=r"images\.test: 'flat' of 'unseen' is of one colour .* infinite PSNR"):
            data.run(both, "test")
    else:
        data.run(both, "test")
    swapped = both.model_copy(update={"images": both.images.model_copy(update={"train": ["unseen"], "test": ["seen"]})})
    data.run(swapped, "train")  # trained on it may be


def test_step_with_an_empty_test_folder(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    empty = with_images(settings, test=["empty"], folders={"empty": str(tmp_path / "empty")})
    with pytest.raises(OdmError, match="no images in"):
        data.run(empty, "test")
    with pytest.raises(OdmError, match="no split 'tset'"):
        data.run(settings, "tset")
