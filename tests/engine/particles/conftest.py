"""Folders of star files and stacks that the tests of particle sets share."""
import mrcfile
import numpy as np
import pytest
from sound_star import BOX, N


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Folder with s.mrcs of four images and t.mrcs of one."""
    where = tmp_path_factory.mktemp("stars")
    images = np.random.default_rng(0).normal(size=(N, BOX, BOX)).astype(np.float32)
    for name, data in (("s.mrcs", images), ("t.mrcs", images[:1])):
        with mrcfile.new(str(where / name), data=data) as file:
            file.set_image_stack()
    (where / "folder.mrcs").mkdir()
    return where
