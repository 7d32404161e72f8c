import mrcfile
import numpy as np
import pytest

from gmmhet.engine.io.volumes import MapError, read_map, write_map


@pytest.fixture
def cube():
    return np.random.default_rng(0).normal(size=(6, 6, 6)).astype(np.float32)


def test_a_map_comes_back_as_it_was_written(tmp_path, cube):
    write_map(str(tmp_path / "m.mrc"), cube, 2.75)
    array, pixel_size = read_map(str(tmp_path / "m.mrc"))
    np.testing.assert_array_equal(array, cube)
    assert array.dtype == np.float32 and pixel_size == pytest.approx(2.75)


def test_a_written_map_is_a_valid_volume_with_origin_zero(tmp_path, cube):
    path = str(tmp_path / "m.mrc")
    write_map(path, cube, 2.0)
    assert mrcfile.validate(path)
    with mrcfile.open(path) as file:
        assert file.is_volume() and not any(float(file.header.origin[axis]) for axis in "xyz")


def test_the_first_axis_of_the_array_is_z(tmp_path, cube):
    path = str(tmp_path / "m.mrc")
    write_map(path, cube, 2.0)
    in_file = np.fromfile(path, np.float32, offset=1024)
    assert in_file[1] == cube[0, 0, 1] and in_file[36] == cube[1, 0, 0]      # MRC stores x fastest


@pytest.mark.parametrize("shape, pixel_size, change, message", [
    ((4, 4, 6), 2.0, None, "must be a cube, got 6 x 4 x 4 voxels"),
    ((4, 4, 4), 0.0, None, "must have one pixel size above zero in its header, got 0, 0, 0 Å/px"),
    ((4, 4, 4), 2.0, np.nan, "holds 1 voxels that are NaN or infinite"),
])
def test_an_unusable_map_is_refused_with_the_figures(tmp_path, shape, pixel_size, change, message):
    path = str(tmp_path / "m.mrc")
    with mrcfile.new(path, np.ones(shape, np.float32)) as file:
        file.voxel_size = pixel_size
    if change is not None:
        with open(path, "r+b") as file:
            file.seek(1024)
            file.write(np.float32(change).tobytes())
    with pytest.raises(MapError, match=message) as caught:
        read_map(path)
    assert path in str(caught.value)


def test_a_missing_map_and_a_file_that_is_none_are_refused(tmp_path):
    with pytest.raises(MapError, match="no_such.mrc' does not exist"):
        read_map(str(tmp_path / "no_such.mrc"))
    text = tmp_path / "text.mrc"
    text.write_text("this is no map\n" * 100)
    with pytest.raises(MapError, match="text.mrc' is not a readable MRC file"):
        read_map(str(text))
    text.write_text("too short")
    with pytest.raises(MapError, match="text.mrc' is not a readable MRC file: it has 9 bytes, a header has "
                                       "1024"):
        read_map(str(text))


def test_a_map_cut_short_is_refused_with_its_lengths(tmp_path, cube):
    path = str(tmp_path / "m.mrc")
    write_map(path, cube, 2.0)
    with open(path, "r+b") as file:
        file.truncate(1100)
    with pytest.raises(MapError, match="its header says 6 x 6 x 6 voxels, 1888 bytes in all, but it has 1100 "
                                       "bytes"):
        read_map(path)
