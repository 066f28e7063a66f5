from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
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


def test_step_with_an_empty_test_folder(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    empty = with_images(settings, test=["empty"], folders={"empty": str(tmp_path / "empty")})
    with pytest.raises(OdmError, match="no images in"):
        data.run(empty, "test")
    with pytest.raises(OdmError, match="no split 'tset'"):
        data.run(settings, "tset")
