"""Several devices and several hosts: the same result as one."""
import json
import os
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from commands import ROOT, gmmhet, gmmhet_process, history, latents, same_latents, summary, training

from gmmhet.engine import rundir
from gmmhet.engine.batching.devices import Devices, this_process
from gmmhet.engine.config import ConfigError
from gmmhet.engine.model.saved import WEIGHTS
from gmmhet.engine.training.checkpoint import CHECKPOINT

#: batches of 23 divide neither among two devices nor into the 108 particles learned from
FLAGS = dict(epochs=2, latent_steps=1, latent_dim=2, batch_size=23)
TWO_DEVICES = """
import sys
import tensorflow as tf
cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from gmmhet.engine.cli import main
sys.exit(main())
"""


def on_two_devices(*arguments, **environment):
    """Run the command line in a process of its own that sees two devices."""
    command, own = [sys.executable, "-c", TWO_DEVICES], dict(os.environ, PYTHONPATH=ROOT, **environment)
    return subprocess.run([*command, *map(str, arguments)], env=own, check=False, capture_output=True,
                          text=True, timeout=600)


def cluster(process, ports):
    hosts = dict(worker=["127.0.0.1:%d" % port for port in ports])
    return json.dumps(dict(cluster=hosts, task=dict(type="worker", index=process)))


def on_two_hosts(monkeypatch, *arguments):
    """The same command line as two processes that meet on loopback."""
    with socket.socket() as a, socket.socket() as b:
        for s in (a, b):
            s.bind(("127.0.0.1", 0))
        ports = [s.getsockname()[1] for s in (a, b)]
    hosts = []
    for process in (0, 1):
        monkeypatch.setenv("TF_CONFIG", cluster(process, ports))
        hosts.append(gmmhet_process(*arguments))
    monkeypatch.delenv("TF_CONFIG")
    return hosts


@pytest.fixture(scope="module")
def alone(small, tmp_path_factory):
    """The run on one device, in a process of its own like those that it is compared with."""
    out = tmp_path_factory.mktemp("alone") / "out"
    process = gmmhet_process("train", "--out", out, *training(small, **FLAGS))
    output = process.communicate()[0]
    assert process.returncode == 0, output
    return out


def assert_same_run(first, second):
    """Weights, history and latents agree to what rounding does in a few steps of Adam."""
    paths = [run / rundir.MODEL / WEIGHTS for run in (first, second)]
    with np.load(paths[0]) as a, np.load(paths[1]) as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_allclose(a[name], b[name], atol=1e-3)
    one, other = latents(first), latents(second)
    assert same_latents(first, second) < 1e-2
    np.testing.assert_allclose(one.evidence, other.evidence, atol=1e-2)
    for a, b in zip(history(first), history(second)):
        assert float(a["held_out_gain"]) == pytest.approx(float(b["held_out_gain"]), rel=1e-3, abs=1e-4)
    assert summary(first)["held_out_gain"] == pytest.approx(summary(second)["held_out_gain"], rel=1e-3)


def test_two_devices_train_as_one(small, alone, tmp_path):
    done = on_two_devices("train", "--out", tmp_path / "out", *training(small, **FLAGS))
    assert done.returncode == 0, done.stderr
    assert "2 devices in 1 processes share each batch of 23" in done.stderr
    assert_same_run(alone, tmp_path / "out")


def test_two_devices_read_a_landscape_as_one_whatever_hosts_are_named(alone, tmp_path):
    flags = "--model", alone, "--clusters", 2, "--points", 2
    done = on_two_devices("analyze", "--out", tmp_path / "two", *flags, TF_CONFIG=cluster(0, (1, 2)))
    assert done.returncode == 0, done.stderr
    assert gmmhet("analyze", "--out", tmp_path / "one", *flags) == 0
    paths = [tmp_path / name / rundir.EMBEDDING for name in ("one", "two")]
    with np.load(paths[0]) as one, np.load(paths[1]) as two:
        np.testing.assert_allclose(two["probability"], one["probability"], atol=1e-3)


def test_two_hosts_train_as_one_and_only_the_chief_writes(small, alone, tmp_path, monkeypatch):
    hosts = on_two_hosts(monkeypatch, "train", "--out", tmp_path / "out", *training(small, **FLAGS))
    chief, worker = (host.communicate()[0] for host in hosts)
    assert [host.returncode for host in hosts] == [0, 0], chief + worker
    assert "host 1 of 2" in worker and "gmmhet train" in chief and "gmmhet train" not in worker
    assert_same_run(alone, tmp_path / "out")


def test_a_host_that_is_lost_ends_the_others_with_a_sentence(small, tmp_path, monkeypatch):
    flags = training(small, **dict(FLAGS, epochs=500, patience=500))
    chief, worker = on_two_hosts(monkeypatch, "train", "--out", tmp_path / "out", *flags)
    checkpoint, deadline = tmp_path / "out" / rundir.WORK / CHECKPOINT, time.monotonic() + 180
    while not checkpoint.exists() and chief.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()
    try:
        output = chief.communicate(timeout=120)[0]
    finally:
        chief.kill()
    assert chief.returncode == 1
    assert ("error: host 0 of 2 lost contact with the others: see which one stopped first, and why, "
            "then start all again with --resume") in output


@pytest.mark.parametrize("flags", [dict(pose_errors="none"), dict(preset="paper")])      # neither has poses
def test_two_devices_train_where_poses_are_taken_as_exact(small, tmp_path, flags):
    arguments = training(small, **{**FLAGS, "epochs": 1, **flags})
    done = on_two_devices("train", "--out", tmp_path / "out", *arguments)
    assert done.returncode == 0 and (tmp_path / "out" / rundir.SUMMARY).exists(), done.stderr


@pytest.mark.parametrize("count", [1, 2, 23, 46])
@pytest.mark.parametrize("processes", [1, 2])
def test_every_particle_counts_once_however_a_batch_is_shared(count, processes):
    strategy = SimpleNamespace(num_replicas_in_sync=4)
    parts = [Devices(strategy, process, processes) for process in range(processes)]
    rows = np.arange(count)
    own = np.concatenate([devices.local_rows(rows, 46) for devices in parts])
    share = np.concatenate([devices.shares(count, 46) for devices in parts])
    assert len(own) == len(share) == 48 and len({len(devices.local_rows(rows, 46)) for devices in parts}) == 1
    np.testing.assert_array_equal(own[:count], rows)
    np.testing.assert_allclose(np.bincount(own, share), np.full(count, 1 / count))


def test_one_device_reads_the_whole_batch_and_nothing_else():
    np.testing.assert_array_equal(Devices().local_rows(np.arange(5), 8), np.arange(5))
    np.testing.assert_allclose(Devices().shares(5, 8), np.full(5, 0.2))


def test_without_tf_config_or_with_one_host_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert this_process() == (0, 1)
    monkeypatch.setenv("TF_CONFIG", cluster(0, [1]))
    assert this_process() == (0, 1)


def test_hosts_are_counted_with_the_chief_first(monkeypatch):
    hosts = dict(chief=["a:1"], worker=["b:1", "c:1"])
    monkeypatch.setenv("TF_CONFIG", json.dumps(dict(cluster=hosts, task=dict(type="worker", index=1))))
    assert this_process() == (2, 3)


@pytest.mark.parametrize("text", [
    "nonsense", "[]", '{"cluster": {"worker": ["a:1", "b:1"]}}',
    '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}'])
def test_a_tf_config_that_makes_no_sense_is_refused_with_an_example(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    message = "TF_CONFIG must name the hosts and which of them this is, for example .*; got "
    with pytest.raises(ConfigError, match=message):
        this_process()
