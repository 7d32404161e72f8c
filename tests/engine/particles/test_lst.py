"""EMAN2 lists, against images drawn with EMAN2's own formula as its documentation states it."""
import json

import h5py
import numpy as np
import pytest

from gmmhet.engine.imaging.ctf import CTF_COLUMNS
from gmmhet.engine.log import log
from gmmhet.engine.particles.particle_set import ParticleError, read_particles

N, BOX, APIX = 5, 32, 2.5
# px, no symmetry
BLOBS = np.array([[5.0, 1.0, 2.0], [-3.0, 4.0, 0.5], [0.0, -6.0, 3.0], [2.0, 2.0, -5.0]])
CTF = "OE1.5 0.2 30 80 10 300 2.7 2.5 0.01 2,0.1,0.2 2,1,2"
COLUMN = {name: i for i, name in enumerate(CTF_COLUMNS)}


def turn_z(deg):
    c, s = np.cos(np.radians(deg)), np.sin(np.radians(deg))
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def turn_x(deg):
    c, s = np.cos(np.radians(deg)), np.sin(np.radians(deg))
    return np.array([[1, 0, 0], [0, c, s], [0, -s, c]])


def transform(az, alt, phi, tx=0.0, ty=0.0, mirror=False):
    """EMAN2's Transform, mirror x translation x rotation, as a matrix [3, 4]."""
    rotation = turn_z(phi) @ turn_x(alt) @ turn_z(az)
    matrix = np.concatenate([rotation, [[tx], [ty], [0.0]]], axis=1)
    return np.diag([-1.0 if mirror else 1.0, 1.0, 1.0]) @ matrix


def drawn(points):
    """Image of blobs at points [K, 2 or 3], px from the centre."""
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    return np.sum([np.exp(-((x - p[0]) ** 2 + (y - p[1]) ** 2) / 4.5) for p in points],
                  axis=0).astype(np.float32)


def poses(n=N):
    rng = np.random.default_rng(1)
    return [dict(az=az, alt=alt, phi=phi, tx=tx, ty=ty) for az, alt, phi, tx, ty in
            zip(rng.uniform(0, 360, n), rng.uniform(0, 180, n), rng.uniform(0, 360, n), rng.normal(0, 2, n),
                rng.normal(0, 2, n))]


def as_json(matrix):
    return {"xform.projection": {"__class__": "Transform",
                                 "matrix": "[" + ",".join("%g" % v for v in np.ravel(matrix)) + "]"}}


def write_hdf(path, images, ctf=CTF, **attributes):
    with h5py.File(path, "w") as file:
        for i, image in enumerate(images):
            group = file.create_group("MDF/images/%d" % i)
            group["image"] = image
            group.attrs.update({"EMAN." + name: value
                                for name, value in dict(apix_x=np.float32(APIX), **attributes).items()})
            if ctf is not None:
                group.attrs["EMAN.ctf"] = ctf


def write_lst(path, rows, head="#LSX\n# This file is in fast LST format.\n# 300\n"):
    lines = ["%d\t%s" % (number, stack) + ("\t" + json.dumps(values, separators=(",", ":")) if values else "")
             for number, stack, values in rows]
    path.write_text(head + "".join(line.ljust(299) + "\n" for line in lines))
    return str(path)


def project(folder, matrices, name="particles/p.hdf", values=None, **header):
    """An EMAN2 project folder with sets/x.lst and the images that the matrices make; returns the list's
    path."""
    (folder / "particles").mkdir(exist_ok=True)
    (folder / "sets").mkdir(exist_ok=True)
    write_hdf(folder / name, [drawn(BLOBS @ m[:, :3].T + m[:, 3]) for m in matrices], **header)
    return write_lst(folder / "sets" / "x.lst",
                     [(i, name, values[i] if values else as_json(m)) for i, m in enumerate(matrices)])


def predicted(particles):
    """What the engine's conventions make of the poses that were read."""
    points = np.einsum("nij,kj->nki", particles.rotation, BLOBS)[..., :2]
    points = points + particles.shift_angst[:, None] / APIX
    return [drawn(p) for p in points]


@pytest.mark.parametrize("mirror", [False, True])
def test_orientation_and_shift_predict_the_images_that_eman2s_formula_draws(tmp_path, mirror):
    particles = read_particles(project(tmp_path, [transform(**pose, mirror=mirror) for pose in poses()]))
    np.testing.assert_allclose(predicted(particles), particles.read(np.arange(N)), atol=1e-4)
    np.testing.assert_allclose(np.linalg.det(particles.rotation), 1, atol=1e-5)


@pytest.mark.parametrize("mirror", [0, 1])
def test_a_pose_given_by_its_angles_is_the_one_of_its_matrix(tmp_path, mirror):
    matrices = [transform(**pose, mirror=mirror) for pose in poses()]
    given = [{"xform.projection": dict(type="eman", mirror=mirror, **pose)} for pose in poses()]
    particles = read_particles(project(tmp_path, matrices, values=given))
    np.testing.assert_allclose(predicted(particles), particles.read(np.arange(N)), atol=1e-5)


def test_the_ctf_of_the_header_becomes_relions(tmp_path):
    particles = read_particles(project(tmp_path, [transform(10, 20, 30)]))
    ctf = {name: particles.ctf[0, i] for name, i in COLUMN.items()}
    wanted = dict(defocus_u_angst=16000, defocus_v_angst=14000, defocus_angle_deg=30, voltage_kv=300,
                  cs_mm=2.7, amplitude_contrast=0.1,
                  phase_shift_deg=0, bfactor_angst2=80, scale=1)
    assert {name: pytest.approx(float(ctf[name]), rel=1e-6) for name in wanted} == wanted
    assert (particles.pixel_size, particles.box) == (APIX, BOX)


@pytest.mark.parametrize("percent, phase",
                         [(-50, -30.0), (100 * (2 - np.sin(np.radians(120))), 120.0),
                          (-100 * (2 - np.sin(np.radians(120))), -120.0)])
def test_an_amplitude_contrast_beyond_0_to_100_percent_is_a_phase_plate(tmp_path, percent, phase):
    particles = read_particles(project(tmp_path, [transform(0, 0, 0)],
                                       ctf="E1.5 0 0 0 %.9f 300 2.7 2.5" % percent))
    assert particles.ctf[0, COLUMN["amplitude_contrast"]] == 0
    assert particles.ctf[0, COLUMN["phase_shift_deg"]] == pytest.approx(phase, abs=1e-4)


def test_a_defocus_in_the_list_is_added_to_the_headers(tmp_path):
    matrix = transform(0, 50, 0)
    particles = read_particles(project(tmp_path, [matrix], values=[dict(as_json(matrix), defocus=-0.1)]))
    np.testing.assert_allclose(particles.ctf[0, :2], [15000, 13000], rtol=1e-6)


def test_classes_0_and_1_are_half_sets_and_images_are_found_by_number_in_several_stacks(tmp_path):
    matrices = [transform(**pose) for pose in poses(4)]
    path = project(tmp_path, matrices[:2], "particles/a.hdf")
    project(tmp_path, matrices[2:], "particles/b.hdf")
    rows = [(1, "b", 3), (0, "a", 0), (1, "a", 1)]
    write_lst(tmp_path / "sets" / "x.lst",
              [(n, "particles/%s.hdf" % s, {**as_json(matrices[k]), "class": k % 2}) for n, s, k in rows])
    particles = read_particles(path)
    np.testing.assert_array_equal(particles.half, [2, 1, 2])
    np.testing.assert_array_equal(particles.ids, [1, 2, 3])
    np.testing.assert_allclose(predicted(particles), particles.read(np.arange(3)), atol=1e-4)


def test_a_stack_named_as_phase_flipped_is_read_as_such(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level("INFO")
    flipped = read_particles(project(tmp_path, [transform(0, 50, 0)], "particles/p__ctf_flip.hdf"))
    assert "1 of 1 stacks are named as phase-flipped, such as 'particles/p__ctf_flip.hdf'" in caplog.text
    assert "RELION reads no HDF stacks" in caplog.text
    plain = read_particles(project(tmp_path, [transform(0, 50, 0)]))
    assert (flipped.ctf != plain.ctf).sum() == 1


def test_the_star_file_written_from_a_list_reads_back_the_same(tmp_path):
    particles = read_particles(project(tmp_path, [transform(**pose) for pose in poses()]))
    new = str(tmp_path / "new.star")
    particles.write_star(new)
    again = read_particles(new)
    for name in ("ids", "rotation", "shift_angst", "ctf", "half"):
        np.testing.assert_allclose(getattr(again, name), getattr(particles, name), atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(again.read([3]), particles.read([3]))
    moved = particles.with_poses(particles.rotation, particles.shift_angst + 1)
    moved.write_star(new)
    np.testing.assert_allclose(read_particles(new).shift_angst, particles.shift_angst + 1, atol=1e-5)


def test_plain_lists_with_blanks_between_the_values_are_read(tmp_path):
    path = project(tmp_path, [transform(10, 20, 30)])
    text = "#LST\n\n0   particles/p.hdf   %s\n" % json.dumps(as_json(transform(10, 20, 30)))
    (tmp_path / "sets" / "x.lst").write_text(text)
    np.testing.assert_allclose(predicted(read_particles(path)), read_particles(path).read([0]), atol=1e-4)


POSED = json.dumps(as_json(transform(1, 2, 3)))
SCALED = json.dumps(as_json(2 * transform(1, 2, 3)))


@pytest.mark.parametrize("line, message", [
    ("0\tparticles/p.hdf", (r"line 4: the image has no orientation \(xform.projection is missing\): give the "
                            r"list of a 3D refinement")),
    ("x\tparticles/p.hdf\t" + POSED, "expected image number, stack and parameters apart by tabs, got 'x"),
    ("-1\tparticles/p.hdf\t" + POSED, ("line 4: expected image number, stack and parameters apart by tabs, "
                                       "got '-1")),
    ("0", "line 4: expected image number, stack and parameters apart by tabs, got '0'"),
    ("7\tparticles/p.hdf\t" + POSED, "p.hdf' has no image 7 under /MDF/images"),
    ("0\tparticles/q.hdf\t" + POSED, "1 of 1 image stacks are missing, the first is 'particles/q.hdf'"),
    ("0\tsets/y.lst\t" + POSED, "line 4 names another list, 'sets/y.lst', and not a stack"),
    ("0\tparticles/p.hdf\t1.5,2,3", ("line 4: expected parameters as JSON in braces after the stack, got "
                                     "'1.5,2,3'")),
    ("0\tparticles/p.hdf\t" + SCALED, "line 4: xform.projection must be a Transform without scale"),
    ("0\tparticles/p.hdf\t" + POSED.replace("[", "[1,"),
     "line 4: xform.projection must be a Transform without scale"),
    ('0\tparticles/p.hdf\t{"xform.projection":[1,2]}',
     r"a Transform without scale \(a matrix of 12 numbers, or az, alt, phi, tx, ty\), got '\[1, 2\]'"),
    ('0\tparticles/p.hdf\t{"dxf":1,' + POSED[1:], "line 4: the image belongs to a tilt series of a tomogram"),
    ("", "x.lst' holds no particles: expected lines of image number, stack and parameters"),
])
def test_a_line_that_cannot_be_used_is_named(tmp_path, line, message):
    path = project(tmp_path, [transform(1, 2, 3)])
    (tmp_path / "sets" / "x.lst").write_text("#LSX\n# comment\n# 30\n" + line + "\n")
    with pytest.raises(ParticleError, match=message):
        read_particles(path)


@pytest.mark.parametrize("ctf, message", [
    (None, (r"line 4: image 0 of 'particles/p.hdf' has no CTF in its header \(EMAN.ctf is missing\): fit the "
            r"CTF")),
    ("O1.5 0.2", "has the CTF 'O1.5 0.2', expected EMAN2's: E and 8 numbers"),
    ("OE1.5 0.2 x", "has the CTF 'OE1.5 0.2 x', expected EMAN2's: E and 8 numbers"),
    ("OE1.5 0 0 0 10 0 2.7 2.5", ("column rlnVoltage of row 1 of the optics table holds '0.0', expected a "
                                  "number from 10 to 2000 kV")),
    ("OE1.5 0 0 0 900 300 2.7 2.5", "column rlnPhaseShift of particle row 1 .*holds 'nan'"),
])
def test_a_header_whose_ctf_cannot_be_used_is_named(tmp_path, ctf, message):
    with pytest.raises(ParticleError, match=message):
        read_particles(project(tmp_path, [transform(1, 2, 3)], ctf=ctf))


def test_a_stack_without_headers_and_a_list_that_is_no_text_are_refused(tmp_path):
    path = project(tmp_path, [transform(1, 2, 3)])
    (tmp_path / "particles" / "p.mrcs").write_bytes(b"x")
    (tmp_path / "sets" / "x.lst").write_text("0\tparticles/p.mrcs\t" + POSED + "\n")
    with pytest.raises(ParticleError, match="line 1 names the stack 'particles/p.mrcs': the CTF is read from "
                                            "headers of HDF stacks"):
        read_particles(path)
    (tmp_path / "sets" / "x.lst").write_bytes(b"\xff\xfe\x00" * 9)
    with pytest.raises(ParticleError, match="x.lst' is not an EMAN2 list: it is not UTF-8 text"):
        read_particles(path)
