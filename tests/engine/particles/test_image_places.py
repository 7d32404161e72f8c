"""From the names of images to stacks and numbers in them, and back."""
import os

import numpy as np
import pandas as pd
import pytest
from sound_star import assert_refused, changed, read

from gmmhet.engine.io.errors import ParticleError
from gmmhet.engine.particles.image_places import ImagePlaces, check_places, find_stacks, image_places
from gmmhet.engine.particles.star import ParticleTable

REFUSED = {
    "image number 0": (
        changed("_rlnImageName", "000000@s.mrcs"),
        "rlnImageName of particle row 3 is '000000@s.mrcs', expected the image's number from 1"),
    "image number beyond the stack": (
        changed("_rlnImageName", "000005@s.mrcs"),
        "particle id 12 names image 5 of '.*s.mrcs', which holds only 4 images"),
    "an image number that is none": (
        changed("_rlnImageName", "1e0@s.mrcs"),
        "rlnImageName of particle row 3 is '1e0@s.mrcs'"),
    "an image number of 30 digits": (
        changed("_rlnImageName", "9" * 30 + "@s.mrcs"),
        "rlnImageName of particle row 3 is '9{30}@s.mrcs'"),
    "an image without number": (
        changed("_rlnImageName", "s.mrcs"),
        "rlnImageName of particle row 3 is 's.mrcs', which does not say which of the stack's 4"),
    "an image without stack": (
        changed("_rlnImageName", "000001@"),
        "rlnImageName of particle row 3 is '000001@'"),
    "an empty image number": (
        changed("_rlnImageName", "@s.mrcs"),
        "rlnImageName of particle row 3 is '@s.mrcs'"),
    "a stack that is not there": (
        changed("_rlnImageName", "000001@u.mrcs"),
        "1 of 2 image stacks are missing, the first is 'u.mrcs'; searched"),
    "a stack that is a folder": (
        changed("_rlnImageName", "000001@folder.mrcs"),
        "1 of 2 image stacks are missing, the first is 'folder.mrcs'"),
    "a stack that is the star itself": (
        changed("_rlnImageName", "000001@x.star"),
        "stack '.*x.star' is not an MRC file: it has 941 bytes, a header has 1024"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_names_that_cannot_be_meant_are_refused_with_a_sentence(folder, kind):
    assert_refused(folder, *REFUSED[kind])


def test_a_name_without_number_is_the_one_image_of_its_stack(folder):
    particles = read(folder, changed("_rlnImageName", "t.mrcs"))
    np.testing.assert_array_equal(particles.read([2]), particles.read([0]))


def test_every_image_has_its_stack_and_its_number_from_0(folder):
    names = pd.DataFrame(dict(rlnImageName=["3@s.mrcs", "000001@t.mrcs", "0001@s.mrcs"]))
    places = image_places(ParticleTable(str(folder / "x.star"), names, None, {}))
    assert [os.path.basename(stack) for stack in places.stacks] == ["s.mrcs", "t.mrcs"]
    np.testing.assert_array_equal(places.shapes, [[4, 8, 8], [1, 8, 8]])
    np.testing.assert_array_equal(places.stack_of, [0, 1, 0])
    np.testing.assert_array_equal(places.slice_of, [2, 0, 0])
    np.testing.assert_array_equal(places.box, [8, 8, 8])
    assert places.name(0) == "000003@%s" % (folder / "s.mrcs")
    assert list(places.short_names([1])) == ["000001@t.mrcs"]


def made(shapes, stack_of, slice_of):
    stacks = ["/p/Extract/%s.mrcs" % letter for letter in "abc"[:len(shapes)]]
    return ImagePlaces(stacks, np.array(shapes), np.array(stack_of), np.array(slice_of))


def test_stacks_are_named_relative_to_a_star_file_above_them_and_absolute_elsewhere():
    places = made([(9, 8, 8), (9, 8, 8)], [0, 1], [0, 4])
    assert places.names_from("/p") == ["000001@Extract/a.mrcs", "000005@Extract/b.mrcs"]
    assert places.names_from("/p/Refine3D") == ["000001@/p/Extract/a.mrcs", "000005@/p/Extract/b.mrcs"]


def test_chosen_particles_keep_their_places():
    chosen = made([(9, 8, 8), (9, 6, 6)], [0, 1, 0], [3, 4, 5]).select(np.array([2, 1]))
    assert [chosen.name(row) for row in (0, 1)] == ["000006@/p/Extract/a.mrcs", "000005@/p/Extract/b.mrcs"]
    np.testing.assert_array_equal(chosen.box, [8, 6])


@pytest.mark.parametrize("shapes, group, message", [
    ([(9, 8, 8), (9, 8, 6)], [1, 2, 1], "images must be square, got 6 x 8 px in '/p/Extract/b.mrcs'"),
    ([(9, 8, 8), (9, 6, 6)], [1, 1, 1],
     ("all images of an optics group must have the same size: '/p/Extract/a.mrcs' has 8 x 8 px, but "
      "'/p/Extract/b.mrcs' has 6 x 6 px")),
    ([(9, 8, 8), (4, 6, 6)], [1, 2, 1],
     (r"particle id 8 names image 5 of '/p/Extract/b.mrcs', which holds only 4 images \(1 particles name "
      r"images that do not exist\)")),
])
def test_images_that_cannot_be_read_are_refused_with_the_numbers(shapes, group, message):
    with pytest.raises(ParticleError, match="x.star: " + message):
        check_places("x.star", np.array([7, 8, 9]), np.array(group), made(shapes, [0, 1, 0], [0, 4, 1]))


def test_groups_may_differ_in_size():
    check_places("x.star", np.array([7, 8, 9]), np.array([1, 2, 1]),
                 made([(9, 8, 8), (9, 6, 6)], [0, 1, 0], [0, 4, 1]))


@pytest.mark.parametrize("where", ["project/Refine/job", "project", "elsewhere"])
def test_stacks_are_searched_beside_the_star_file_then_above_it_then_in_the_working_directory(
        tmp_path, monkeypatch, where):
    (tmp_path / where / "Extract").mkdir(parents=True)
    (tmp_path / where / "Extract" / "s.mrcs").write_bytes(b"")
    (tmp_path / "elsewhere").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    star = str(tmp_path / "project" / "Refine" / "job" / "data.star")
    assert find_stacks(star, ["Extract/s.mrcs"]) == [str(tmp_path / where / "Extract" / "s.mrcs")]


def test_the_nearest_folder_goes_first(tmp_path):
    for folder in (tmp_path, tmp_path / "job"):
        folder.mkdir(exist_ok=True)
        (folder / "s.mrcs").write_bytes(b"")
    assert find_stacks(str(tmp_path / "job" / "data.star"), ["s.mrcs"]) == [str(tmp_path / "job" / "s.mrcs")]


def test_missing_stacks_are_counted_and_the_folders_searched_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.mrcs").write_bytes(b"")
    with pytest.raises(ParticleError) as refusal:
        find_stacks(str(tmp_path / "job" / "data.star"), ["s.mrcs", "gone.mrcs", "also.mrcs"])
    assert str(refusal.value) == (
        "%s: 2 of 3 image stacks are missing, the first is 'gone.mrcs'; searched %s, each folder above it "
        "and the working directory %s" % (tmp_path / "job" / "data.star", tmp_path / "job", tmp_path))
