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
from commands import ROOT, gmmhet, gmmhet_process, training

from gmmhet.engine import rundir
from gmmhet.engine.batching.devices import Devices, this_process
from gmmhet.engine.config import ConfigError

#: batches of 23 divide neither among two devices nor into the 108 particles learned from
FLAGS = dict(epochs=2, latent_steps=1, latent_dim=2, batch_size=23)
TWO_DEVICES = """
import sys
import tensorflow as tf
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from gmmhet.engine.cli import main
sys.exit(main())
"""


def cluster(process, ports):
    return json.dumps(dict(cluster=dict(worker=["127.0.0.1:%d" % p for p in ports]), task=dict(type="worker", index=process)))


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
    """The run on one device."""
    out = tmp_path_factory.mktemp("alone") / "out"
    assert gmmhet("train", "--out", out, *training(small, **FLAGS)) == 0
    return out


def assert_same_run(first, second):
    """Weights, history and latents agree to what rounding does in a few steps of Adam."""
    with np.load(first / rundir.MODEL / "weights.npz") as a, np.load(second / rundir.MODEL / "weights.npz") as b:
        for name in a.files:
            np.testing.assert_allclose(a[name], b[name], atol=1e-3)
    with np.load(first / rundir.LATENTS) as a, np.load(second / rundir.LATENTS) as b:
        np.testing.assert_array_equal(a["id"], b["id"])
        np.testing.assert_allclose(a["z"], b["z"], atol=1e-2 * a["z"].std())
        np.testing.assert_allclose(a["evidence"], b["evidence"], atol=1e-2)
    a, b = (json.load(open(folder / rundir.SUMMARY)) for folder in (first, second))
    assert a["held_out_gain"] == pytest.approx(b["held_out_gain"], rel=1e-3)


def test_two_devices_train_as_one(small, alone, tmp_path):
    done = subprocess.run([sys.executable, "-c", TWO_DEVICES, "train", "--out", tmp_path / "out", *map(str, training(small, **FLAGS))],
                          env=dict(os.environ, PYTHONPATH=ROOT), capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "2 devices in 1 processes share each batch of 23" in done.stderr, done.stderr
    assert_same_run(alone, tmp_path / "out")


def test_two_devices_read_a_landscape_as_one_whatever_hosts_are_named(alone, tmp_path):
    flags = "--model", str(alone), "--clusters", "2", "--points", "2"
    environment = dict(os.environ, PYTHONPATH=ROOT, TF_CONFIG=cluster(0, (1, 2)))
    done = subprocess.run([sys.executable, "-c", TWO_DEVICES, "analyze", "--out", tmp_path / "two", *flags], env=environment,
                          capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert gmmhet("analyze", "--out", tmp_path / "one", *flags) == 0
    with np.load(tmp_path / "one" / rundir.EMBEDDING) as one, np.load(tmp_path / "two" / rundir.EMBEDDING) as two:
        np.testing.assert_allclose(two["probability"], one["probability"], atol=1e-3)


def test_two_hosts_train_as_one_and_only_the_chief_writes(small, alone, tmp_path, monkeypatch):
    hosts = on_two_hosts(monkeypatch, "train", "--out", tmp_path / "out", *training(small, **FLAGS))
    told = [host.communicate()[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], "\n".join(told)
    assert "host 1 of 2" in told[1] and "gmmhet train" in told[0] and "gmmhet train" not in told[1]
    assert_same_run(alone, tmp_path / "out")


def test_a_host_that_is_lost_ends_the_others_with_a_sentence(small, tmp_path, monkeypatch):
    flags = training(small, **dict(FLAGS, epochs=500, patience=500))
    chief, worker = on_two_hosts(monkeypatch, "train", "--out", tmp_path / "out", *flags)
    deadline = time.monotonic() + 180
    while not (tmp_path / "out" / rundir.WORK / "checkpoint.npz").exists() and chief.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()
    try:
        told = chief.communicate(timeout=120)[0]
    finally:
        chief.kill()
    assert chief.returncode == 1
    assert ("error: host 0 of 2 lost contact with the others: see which one stopped first, and why, "
            "then start all again with --resume") in told


@pytest.mark.parametrize("flags", [dict(pose_errors="none"), dict(preset="paper")])      # neither looks at poses
def test_two_devices_train_where_poses_are_taken_as_exact(small, tmp_path, flags):
    words = map(str, training(small, **{**FLAGS, "epochs": 1, **flags}))
    done = subprocess.run([sys.executable, "-c", TWO_DEVICES, "train", "--out", tmp_path / "out", *words],
                          env=dict(os.environ, PYTHONPATH=ROOT), capture_output=True, text=True, check=False)
    assert done.returncode == 0 and (tmp_path / "out" / rundir.SUMMARY).exists(), done.stderr


@pytest.mark.parametrize("count", [1, 2, 23, 46])
@pytest.mark.parametrize("processes", [1, 2])
def test_every_item_counts_once_however_a_batch_is_shared(count, processes):
    strategy = SimpleNamespace(num_replicas_in_sync=4)
    parts = [Devices(strategy, process, processes) for process in range(processes)]
    rows = np.arange(count)
    own = np.concatenate([devices.own(rows, 46) for devices in parts])
    share = np.concatenate([devices.shares(count, 46) for devices in parts])
    assert len(own) == len(share) == 48 and len({len(devices.own(rows, 46)) for devices in parts}) == 1
    np.testing.assert_array_equal(own[:count], rows)
    np.testing.assert_allclose(np.bincount(own, share), np.full(count, 1 / count))


def test_one_device_reads_the_whole_batch_and_nothing_else():
    np.testing.assert_array_equal(Devices().own(np.arange(5), 8), np.arange(5))
    np.testing.assert_allclose(Devices().shares(5, 8), np.full(5, 0.2))


def test_without_tf_config_or_with_one_host_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert this_process() == (0, 1)
    monkeypatch.setenv("TF_CONFIG", cluster(0, [1]))
    assert this_process() == (0, 1)


def test_hosts_are_counted_with_the_chief_first(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps(dict(cluster=dict(chief=["a:1"], worker=["b:1", "c:1"]), task=dict(type="worker", index=1))))
    assert this_process() == (2, 3)


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"cluster": {"worker": ["a:1", "b:1"]}}',
                                  '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}'])
def test_a_tf_config_that_makes_no_sense_is_refused_with_an_example(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match="TF_CONFIG must name the hosts and which of them this is, for example .*; got "):
        this_process()
