"""What Scipion holds and what the engine is given mean the same: proved with RELION's own reconstruction."""
import os
import subprocess
import sys

import h5py
import mrcfile
import numpy as np
import pytest
import synthetic
from emtable import Table
from pwem.convert import transformations
from pwem.objects import CTFModel, Particle, SetOfParticles, Transform, Volume
from steps import run_relion

from gmmhet import convert

pytestmark = pytest.mark.relion


def column(path, name, kind=float):
    return [kind(getattr(row, name)) for row in Table.iterRows(path, tableName="particles")]


def reconstructed(star, where, out):
    """RELION's reconstruction of a star file, with CTF; `where` is the folder that the star file's images are
    relative to."""
    run_relion("relion_reconstruct --i %s --o %s --ctf --angpix %g"
               % (star, out, synthetic.PIXEL_SIZE), where)
    with mrcfile.open(out, permissive=True) as file:
        return np.array(file.data)


@pytest.fixture(scope="module")
def written(imported, tmp_path_factory):
    """Star file of the imported particles, written for the engine."""
    path = str(tmp_path_factory.mktemp("written") / "particles.star")
    assert convert.write_particles(imported.outputParticles, path, chunk=64) == synthetic.NUMBER
    return path


def test_alignment_of_relion_angles_agrees_with_the_relion_plugin(imported):
    angles, origins = [np.stack([synthetic.parameters()[name] for name in names], 1) for names in (
        ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), ("rlnOriginXAngst", "rlnOriginYAngst"))]
    ours = convert.alignment_from_euler(angles, origins, synthetic.PIXEL_SIZE)
    theirs = np.stack([item.getTransform().getMatrix() for item in imported.outputParticles])
    assert np.abs(ours - theirs).max() < 1e-5       # the star file has six decimals


@pytest.mark.parametrize("tilt", [0.0, 180.0])
def test_at_the_poles_angles_come_back_as_the_same_rotation(tilt):
    matrices = convert.alignment_from_euler([[10.0, tilt, 25.0]], [[1.0, -2.0]], 1.5)
    again = convert.alignment_from_euler(*convert.euler_from_alignment(matrices, 1.5), 1.5)
    assert np.abs(again - matrices).max() < 1e-12


@pytest.mark.parametrize("name", ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst",
                                  "rlnOriginYAngst", "rlnDefocusU",
                                  "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift", "rlnCoordinateX",
                                  "rlnCoordinateY", "rlnCtfBfactor"])
def test_a_number_of_the_star_file_survives_import_and_writing(written, name):
    assert np.abs(np.array(column(written, name)) - synthetic.parameters()[name]).max() < 2e-5


@pytest.mark.parametrize("name", ["rlnImageId", "rlnRandomSubset"])
def test_an_integer_of_the_star_file_survives_exactly(written, name):
    assert column(written, name, int) == [int(value) for value in synthetic.parameters()[name]]


def test_both_optics_groups_survive(written):
    groups = list(Table.iterRows(written, tableName="optics"))
    assert [row.rlnOpticsGroupName for row in groups] == ["group1", "group2"]
    assert all(float(row.rlnImagePixelSize) == synthetic.PIXEL_SIZE and int(row.rlnImageSize) == synthetic.BOX
               for row in groups)


def test_micrograph_names_survive(written):
    names = [os.path.basename(name) for name in column(written, "rlnMicrographName", str)]
    assert names == synthetic.parameters()["rlnMicrographName"]


@pytest.fixture(scope="module")
def original(phantom, tmp_path_factory):
    """RELION's reconstruction of the star file that Scipion imported."""
    return reconstructed("particles.star", phantom, str(tmp_path_factory.mktemp("original") / "map.mrc"))


def assert_same_map_and_hand(ours, original):
    truth = synthetic.density()
    assert synthetic.correlation(ours, original) > 0.999999
    assert synthetic.correlation(ours, truth) > 0.95
    assert synthetic.correlation(ours, truth[:, :, ::-1]) < 0.7


def test_relion_reconstructs_the_same_map_with_the_same_hand_from_the_written_star(project, written, original,
                                                                                   tmp_path):
    assert_same_map_and_hand(reconstructed(written, project.path, str(tmp_path / "ours.mrc")), original)


def test_relion_reconstructs_the_same_half_map_from_the_written_half_set(project, phantom, written, tmp_path):
    halves = []
    for star, where in ((written, project.path), ("particles.star", phantom)):
        out = str(tmp_path / ("half%d.mrc" % len(halves)))
        run_relion("relion_reconstruct --i %s --o %s --ctf --angpix %g --subset 1"
                   % (star, out, synthetic.PIXEL_SIZE), where)
        with mrcfile.open(out, permissive=True) as file:
            halves.append(np.array(file.data))
    assert synthetic.correlation(*halves) > 0.999999


# ------------------------------------------------------------------ particles as the EMAN2 plugin makes them
def eman_alignment(angles, shifts_px):
    """A projection alignment as the EMAN2 plugin stores it: the inverse of the matrix of -angles, with minus
    the shifts."""
    rotation = transformations.euler_matrix(*-np.radians(angles), "szyz")
    rotation[:2, 3] = -np.asarray(shifts_px)
    transform = Transform()
    transform.setMatrix(np.linalg.inv(rotation))
    return transform


def write_eman_stack(path, images, bits=0):
    """An HDF stack in EMAN2's layout, as floats or reduced to integers of so many bits."""
    with h5py.File(path, "w") as file:
        for i, image in enumerate(images):
            group = file.create_group("MDF/images/%d" % i)
            if bits:
                low, high = float(image.min()), float(image.max())
                group.attrs.update({"EMAN.stored_renderbits": bits, "EMAN.stored_rendermin": low,
                                    "EMAN.stored_rendermax": high})
                image = np.round((image - low) / (high - low) * (2 ** bits - 1)).astype(np.uint16)
            group.create_dataset("image", data=image)


@pytest.fixture(scope="module")
def eman(project, phantom, tmp_path_factory):
    """The phantom's particles in an HDF stack, in a set made as the EMAN2 plugin makes it: no optics groups,
    no RELION labels."""
    folder = str(tmp_path_factory.mktemp("eman"))
    with mrcfile.open(os.path.join(phantom, "particles.mrcs"), permissive=True) as file:
        write_eman_stack(os.path.join(folder, "stack.hdf"), file.data)
    particles = SetOfParticles(filename=os.path.join(folder, "particles.sqlite"))
    particles.setSamplingRate(synthetic.PIXEL_SIZE)
    acquisition = particles.getAcquisition()
    acquisition.setVoltage(300.0)
    acquisition.setSphericalAberration(2.7)
    acquisition.setAmplitudeContrast(0.1)
    particles.setHasCTF(True)
    particles.setAlignmentProj()
    particles._firstDim.set((synthetic.BOX, synthetic.BOX, 1))
    values = synthetic.parameters()
    for i in range(synthetic.NUMBER):
        item = Particle()
        item.setObjId(int(values["rlnImageId"][i]))
        item.setLocation(i + 1, os.path.join(folder, "stack.hdf"))
        item.setTransform(eman_alignment([values["rlnAngle" + name][i] for name in ("Rot", "Tilt", "Psi")],
                                         [values["rlnOrigin%sAngst" % name][i] / synthetic.PIXEL_SIZE
                                          for name in "XY"]))
        ctf = CTFModel()
        ctf.setStandardDefocus(*[float(values["rlnDefocus" + name][i]) for name in ("U", "V", "Angle")])
        item.setCTF(ctf)
        # SetOfImages would ask the EMAN2 plugin for the size
        SetOfParticles.__base__.__base__.append(particles, item)
    particles.write()
    return particles


def test_relion_reconstructs_the_same_map_from_particles_of_an_eman_stack(eman, original, tmp_path):
    """RELION reads no HDF: the images are rewritten, in the order and under the names of the written star."""
    star = str(tmp_path / "particles.star")
    convert.write_particles(eman, star)
    with open(star) as file:
        text = file.read()
    names = column(star, "rlnImageName", str)
    path = names[0].split("@")[1]
    with h5py.File(path) as source, mrcfile.new(str(tmp_path / "stack.mrcs")) as out:
        out.set_data(np.stack([source["MDF/images/%d/image" % (int(name.split("@")[0]) - 1)][()]
                               for name in names]))
        out.set_image_stack()
    for i, name in enumerate(names, 1):
        text = text.replace(name, "%06d@%s" % (i, "stack.mrcs"))
    with open(str(tmp_path / "relion.star"), "w") as file:
        file.write(text)
    ours = reconstructed("relion.star", str(tmp_path), str(tmp_path / "ours.mrc"))
    assert_same_map_and_hand(ours, original)


def test_ids_of_an_eman_set_survive(eman, tmp_path):
    convert.write_particles(eman, str(tmp_path / "particles.star"))
    ids = column(str(tmp_path / "particles.star"), "rlnImageId", int)
    assert ids == synthetic.parameters()["rlnImageId"].tolist()


def test_the_engine_reads_the_images_that_a_written_star_names_in_an_eman_stack(eman, phantom, tmp_path):
    code = ("import sys, numpy as np\n"
            "from gmmhet.engine.particles.particle_set import read_particles\n"
            "particles = read_particles(sys.argv[1])\n"
            "np.savez(sys.argv[2], ids=particles.ids, images=particles.read(np.array([0, 7, 299])))")
    star, out = str(tmp_path / "particles.star"), str(tmp_path / "read.npz")
    convert.write_particles(eman, star)
    subprocess.run([sys.executable, "-c", code, star, out], check=True)
    with mrcfile.open(os.path.join(phantom, "particles.mrcs"), permissive=True) as file, np.load(out) as read:
        assert np.array_equal(read["images"], file.data[[0, 7, 299]])
        assert read["ids"][[0, 7, 299]].tolist() == [11, 32, 908]


# ------------------------------------------------------------------ reading back
def test_alignment_read_back_is_what_was_written(imported, written):
    found = convert.read_poses(written)
    for item, values in convert.join(imported.outputParticles.iterItems(), found, "alignment"):
        before = item.getTransform().getMatrix()
        convert.set_alignment(item, values, synthetic.PIXEL_SIZE)
        assert np.abs(item.getTransform().getMatrix() - before).max() < 1e-9


def test_joining_names_the_particle_that_has_no_value(imported, written):
    found = convert.read_poses(written)
    del found[14]
    with pytest.raises(convert.ConversionError, match="Particle 14 of the input set has no refined orient"):
        list(convert.join(imported.outputParticles.iterItems(), found, "refined orientation"))


def write_latents(path, ids, copies):
    values = np.arange(len(ids), dtype=float)
    np.savez(path, id=np.array(ids), copy=np.array(copies), z=np.stack([values, -values], 1),
             agreement=values, neutral_agreement=values,
             held_out=values > 3)


def test_latents_are_joined_by_id_and_copy_whatever_their_order(tmp_path):
    write_latents(str(tmp_path / "latents.npz"), [9, 4, 4, 9], [0, 1, 0, 1])
    found = convert.read_latents_by_id(str(tmp_path))
    assert found[4].z.tolist() == [[2, -2], [1, -1]]
    assert found[9].z.tolist() == [[0, 0], [3, -3]]
    assert found[9].agreement == 1.5


def test_latents_that_lack_a_copy_are_refused(tmp_path):
    write_latents(str(tmp_path / "latents.npz"), [9, 4, 4, 5], [0, 1, 0, 0])
    with pytest.raises(convert.ConversionError, match="does not hold all 2 symmetry copies"):
        convert.read_latents_by_id(str(tmp_path))


# ------------------------------------------------------------------ what cannot be written
def refused(particles, path):
    with pytest.raises(convert.ConversionError) as caught:
        convert.write_particles(particles, path)
    return str(caught.value)


@pytest.fixture
def copy_of(imported, tmp_path):
    """Function that makes a changed copy of the imported set."""
    def make(change_set=None, change_item=None, number=5):
        made = SetOfParticles(filename=str(tmp_path / "copy.sqlite"))
        made.copyInfo(imported.outputParticles)
        if change_set:
            change_set(made)
        for item, _ in zip(imported.outputParticles.iterItems(), range(number)):
            copy = item.clone()
            if change_item:
                change_item(copy)
            made.append(copy)
        made.write()
        return made
    return make


def test_an_empty_set_is_refused(copy_of, tmp_path):
    assert "set of particles is empty" in refused(copy_of(number=0), str(tmp_path / "x.star"))


def test_a_set_whose_particles_are_all_disabled_is_refused(copy_of, tmp_path):
    disabled = copy_of(change_item=lambda item: item.setEnabled(False))
    assert "all its particles are disabled" in refused(disabled, str(tmp_path / "x.star"))


def test_disabled_particles_are_left_out(copy_of, tmp_path):
    made = copy_of(change_item=lambda item: item.setEnabled(item.getObjId() != 14))
    assert convert.write_particles(made, str(tmp_path / "x.star")) == 4
    assert column(str(tmp_path / "x.star"), "rlnImageId", int) == [11, 17, 20, 23]


def test_particles_without_alignment_are_refused(copy_of, tmp_path):
    message = refused(copy_of(change_set=lambda made: made.setAlignment("None")), str(tmp_path / "x.star"))
    assert "no projection alignment (their alignment is 'None')" in message


def test_particles_without_ctf_are_refused(copy_of, tmp_path):
    assert "have no CTF" in refused(copy_of(change_item=lambda item: item.setCTF(None)),
                                    str(tmp_path / "x.star"))


def test_phase_flipped_particles_are_marked_in_every_optics_group(copy_of, tmp_path):
    convert.write_particles(copy_of(change_set=lambda made: made.setIsPhaseFlipped(True)),
                            str(tmp_path / "x.star"))
    assert [row.rlnCtfDataArePhaseFlipped
            for row in Table.iterRows(str(tmp_path / "x.star"), tableName="optics")] == [1, 1]


def test_particles_that_are_not_phase_flipped_are_not_marked(written):
    with open(written) as star:
        assert "rlnCtfDataArePhaseFlipped" not in star.read()


def test_particles_without_voltage_are_refused(copy_of, tmp_path):
    def forget(made):
        made.getAcquisition().opticsGroupInfo.set(None)
        made.getAcquisition().setVoltage(None)
    assert "acquisition lacks rlnVoltage" in refused(copy_of(change_set=forget), str(tmp_path / "x.star"))


def test_the_optics_group_of_an_item_survives(copy_of, tmp_path):
    """Scipion's import drops it from the items; protocols of the RELION plugin keep it."""
    made = copy_of(change_item=lambda item: convert.set_scalar(item, "_rlnOpticsGroup",
                                                               1 + item.getObjId() % 2))
    convert.write_particles(made, str(tmp_path / "x.star"))
    assert column(str(tmp_path / "x.star"), "rlnOpticsGroup", int) == [2, 1, 2, 1, 2]


def test_stack_names_with_blanks_survive(copy_of, tmp_path):
    made = copy_of(change_item=lambda item: item.setLocation(item.getObjId(), "a folder/stack.mrcs"))
    convert.write_particles(made, str(tmp_path / "x.star"))
    assert column(str(tmp_path / "x.star"), "rlnImageName", str)[0] == "000011@a folder/stack.mrcs"


@pytest.mark.parametrize("path, name",
                         [("stack.mrcs", "000003@stack.mrcs"), ("map.mrc:mrcs", "000003@map.mrc"),
                                        ("data:2024/stack.mrcs", "000003@data:2024/stack.mrcs")])
def test_image_names_drop_format_marks_only(path, name):
    item = Particle()
    item.setLocation(3, path)
    assert convert.image_name(item) == name


# ------------------------------------------------------------------ maps
def test_a_map_in_eman_format_is_rewritten_as_it_is(tmp_path):
    write_eman_stack(str(tmp_path / "map.hdf"), [synthetic.density()])
    volume = Volume(location=str(tmp_path / "map.hdf"))
    volume.setSamplingRate(3.5)
    path = convert.write_map(volume, str(tmp_path / "map.mrc"))
    with mrcfile.open(path) as file:
        assert np.array_equal(file.data, synthetic.density())
    assert convert.pixel_size_of(path) == pytest.approx(3.5)


def test_an_mrc_map_is_used_where_it_is(tmp_path):
    assert convert.write_map(Volume(location="somewhere/map.mrc:mrc"),
                             str(tmp_path / "map.mrc")) == "somewhere/map.mrc"
