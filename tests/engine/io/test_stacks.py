import bz2
import gzip
import os
import shutil

import h5py
import mrcfile
import numpy as np
import pytest
from mrcfile.dtypes import HEADER_DTYPE

from gmmhet.engine.io.errors import ParticleError
from gmmhet.engine.io.stacks import StackCache, stack_shape


def write_mrc(path, images):
    with mrcfile.new(path, data=images) as file:
        file.set_image_stack()
    return str(path)


def header(**fields):
    """The bytes of a stack of one image of 4 x 4 px with other values in its header."""
    record = np.zeros((), HEADER_DTYPE)
    for name, value in {**dict(nx=4, ny=4, nz=1, mode=2), **fields}.items():
        record[name] = value
    return record.tobytes() + bytes(64)


def write_hdf(path, images, attributes=None):
    with h5py.File(path, "w") as file:
        for i, image in enumerate(images):
            group = file.create_group("MDF/images/%d" % i)
            group["image"] = image
            group.attrs.update(attributes or {})
    return str(path)


@pytest.mark.parametrize("dtype, mode", [(np.int8, 0), (np.int16, 1), (np.float32, 2), (np.uint16, 6),
                                         (np.float16, 12)])
def test_every_mrc_mode_of_real_images_is_read(tmp_path, dtype, mode):
    images = (np.arange(3 * 16).reshape(3, 4, 4) + 1).astype(dtype)
    path = write_mrc(tmp_path / "s.mrcs", images)
    with mrcfile.open(path, header_only=True) as file:
        assert file.header.mode == mode
    assert stack_shape(path) == (3, 4, 4)
    np.testing.assert_array_equal(StackCache().get(path).read(np.array([2, 0])), images[[2, 0]])


def test_a_big_endian_stack_with_an_extended_header_is_read(tmp_path):
    images = np.arange(32, dtype=">f4").reshape(2, 4, 4)
    with mrcfile.new(tmp_path / "s.mrcs") as file:
        file.set_data(images)
        file.set_extended_header(np.zeros(80, "S1"))
        assert file.header.nsymbt == 80
    np.testing.assert_array_equal(StackCache().get(str(tmp_path / "s.mrcs")).read(np.array([1])), images[1:])


@pytest.mark.parametrize("ending, opener", [(".gz", gzip.open), (".bz2", bz2.open)])
def test_a_compressed_stack_is_read(tmp_path, ending, opener):
    images = np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)
    plain = write_mrc(tmp_path / "s.mrcs", images)
    with open(plain, "rb") as source, opener(plain + ending, "wb") as target:
        shutil.copyfileobj(source, target)
    assert stack_shape(plain + ending) == (3, 4, 4)
    np.testing.assert_array_equal(StackCache().get(plain + ending).read(np.array([1, 1])), images[[1, 1]])


def test_an_eman2_hdf_stack_is_read_by_image_number(tmp_path):
    images = np.random.default_rng(0).normal(size=(12, 4, 4)).astype(np.float32)
    path = write_hdf(tmp_path / "s.hdf", images)
    assert stack_shape(path) == (12, 4, 4)
    np.testing.assert_array_equal(StackCache().get(path).read(np.array([10, 2])), images[[10, 2]])


def test_bit_reduced_hdf_images_get_their_range_back(tmp_path):
    stored = np.array([[0, 255], [51, 102]], np.uint8)
    path = write_hdf(tmp_path / "s.hdf", [stored],
                     {"EMAN.stored_renderbits": 8, "EMAN.stored_rendermin": -1.0,
                      "EMAN.stored_rendermax": 4.0})
    np.testing.assert_allclose(StackCache().get(path).read(np.array([0]))[0], [[-1, 4], [0, 1]], atol=1e-6)


def test_a_stack_cut_short_is_refused_with_the_numbers(tmp_path):
    path = write_mrc(tmp_path / "s.mrcs", np.zeros((5, 4, 4), np.float32))
    with open(path, "r+b") as file:
        file.truncate(1024 + 3 * 64 + 10)
    with pytest.raises(ParticleError, match="s.mrcs' is cut short: its header says 5 images, the file holds "
                                            "3 whole ones"):
        stack_shape(path)


@pytest.mark.parametrize("name, content, message", [
    ("a.mrcs", b"short", "a.mrcs' is not an MRC file: it has 5 bytes"),
    ("a.mrcs", b"x" * 4096, ("a.mrcs' is not a readable MRC stack: expected mode 0, 1, 2, 6 or 12, got mode "
                             "2021161080")),
    ("a.hdf", b"x" * 4096, "a.hdf' is not an EMAN2 HDF stack with images under /MDF/images"),
    ("a.mrcs.gz", b"\x1f\x8b\x08" + b"x" * 4096, "a.mrcs.gz' cannot be uncompressed"),
    ("a.mrcs.gz", b"\x1f\x8b\x08\x00" + b"\0" * 5 + b"\3" + b"\xff" * 100,
     "a.mrcs.gz' cannot be uncompressed: Error -3"),
    ("a.mrcs", header(nsymbt=-80), "a.mrcs' is not a readable MRC stack"),
])
def test_a_file_that_is_no_stack_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ParticleError, match=message):
        stack_shape(str(tmp_path / name))


def test_the_cache_keeps_the_stacks_used_last(tmp_path):
    paths = [write_mrc(tmp_path / ("%d.mrcs" % i), np.zeros((1, 4, 4), np.float32)) for i in range(3)]
    cache = StackCache(most_open=2)
    first, second = cache.get(paths[0]), cache.get(paths[1])
    assert cache.get(paths[0]) is first
    cache.get(paths[2])
    assert cache.get(paths[0]) is first and cache.get(paths[1]) is not second


def test_a_stack_cut_short_during_a_run_is_named_with_the_image(tmp_path):
    """A memory map would end the whole program here with SIGBUS."""
    path, cache = write_mrc(tmp_path / "s.mrcs", np.ones((5, 64, 64), np.float32)), StackCache()
    assert cache.read(path, np.array([0, 4])).all()
    with open(path, "r+b") as file:
        file.truncate(1024 + 3 * 64 * 64 * 4 + 100)
    assert cache.read(path, np.array([2])).all()
    with pytest.raises(ParticleError, match="s.mrcs' ended at image 4 while it was read, after it held 5 "
                                            "images when the run began"):
        cache.read(path, np.array([0, 3]))


def test_a_stack_that_vanishes_is_read_while_open_and_named_when_it_must_be_opened_again(tmp_path):
    paths = [write_mrc(tmp_path / ("%d.mrcs" % i), np.full((1, 4, 4), i, np.float32)) for i in range(2)]
    cache = StackCache(most_open=1)
    cache.get(paths[0])
    (tmp_path / "0.mrcs").unlink()
    assert not cache.read(paths[0], np.array([0])).any()
    cache.get(paths[1])
    with pytest.raises(ParticleError, match="0.mrcs' cannot be read: No such file or directory; it could be "
                                            "read when the run began"):
        cache.read(paths[0], np.array([0]))


def test_an_hdf_stack_damaged_during_a_run_is_named(tmp_path):
    path, cache = write_hdf(tmp_path / "s.hdf", np.ones((3, 64, 64), np.float32)), StackCache()
    cache.get(path)
    with open(path, "r+b") as file:
        file.truncate(3000)
    with pytest.raises(ParticleError, match="s.hdf' cannot be read: .*; it could be read when the run began"):
        cache.read(path, np.arange(3))


def test_reading_closes_the_stacks_that_leave_the_cache(tmp_path):
    paths = [write_mrc(tmp_path / ("%d.mrcs" % i), np.zeros((1, 4, 4), np.float32)) for i in range(20)]
    cache, before = StackCache(most_open=3), len(os.listdir("/proc/self/fd"))
    for path in paths * 2:
        cache.read(path, np.array([0]))
    assert len(os.listdir("/proc/self/fd")) <= before + 3
