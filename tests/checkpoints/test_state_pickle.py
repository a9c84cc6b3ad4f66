import os
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
from helpers import TESTS, recipes
from helpers.checkpoints import assert_same, momentum, network, step, weights
from helpers.hostile import fluid_file
from helpers.networks import set_weights

from palm_cls.checkpoints.state_pickle import read_state
from palm_cls.checkpoints.weights import load, save
from palm_cls.core.errors import InputError
from palm_cls.eval.losses import cross_entropy
from palm_cls.models.lenet import LeNet

import paddle

FLUID = TESTS / "golden" / "lenet10.pdparams"


def trained_like_the_original():
    """LeNet for digits after the 20 steps that the golden files of PaddlePaddle 1.6.1 were saved after."""
    model = set_weights(LeNet(num_classes=10, in_channels=1, image_size=28), "lenet10")
    optimizer = paddle.optimizer.Momentum(0.001, 0.9, parameters=model.parameters())
    for number in range(recipes.STEPS):
        imgs, labels = map(paddle.to_tensor, recipes.mnist_batch(recipes.train_seed(number)))
        cross_entropy(model(imgs), labels).backward()
        optimizer.step()
        optimizer.clear_grad()
    return model, optimizer


def test_weights_and_velocities_of_paddle_1_6_are_those_that_training_gives_today():
    trained, trained_optimizer = trained_like_the_original()
    model = LeNet(num_classes=10, in_channels=1, image_size=28)
    optimizer = momentum(model)
    load(FLUID, model, optimizer)
    for name, value in weights(trained).items():
        np.testing.assert_allclose(weights(model)[name], value, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(optimizer.state_dict().values(), trained_optimizer.state_dict().values()):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-5)


def test_weights_of_paddle_1_6_for_another_network_are_refused():
    with pytest.raises(InputError, match=r"another network \(lenet-mnist\)\. of another shape: conv1.weight \[6, 1,"):
        load(FLUID, LeNet(num_classes=10, in_channels=3, image_size=28))


def test_alexnet_of_paddle_1_6_takes_our_names(tmp_path):
    from palm_cls.checkpoints.paddle16 import rename_paddle16

    state = {f"AlexNet/AlexNet_0/Conv2D_{i}.w_0": i for i in range(5)} | {
        f"AlexNet/AlexNet_0/FC_{i}.b_0": i for i in range(3)
    }
    state["AlexNet/AlexNet_0/FC_2.w_0_MomentumOptimizer_0_velocity_0"] = 9
    names = rename_paddle16(state, [f"conv{i}" for i in range(1, 6)], [f"fc{i}" for i in range(1, 4)])
    assert names == {f"conv{i + 1}.weight": i for i in range(5)} | {f"fc{i + 1}.bias": i for i in range(3)} | {
        "fc3.weight.velocity": 9
    }


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda data: data[:-3], "cut off"),
        (lambda data: data + b"x", "1 bytes too many"),
        (lambda data: data.replace(b"NAME", b"NOME"), "b'NAME' expected"),
        (lambda data: fluid_file([("a.w_0", np.zeros(2))] * 2), "twice"),
        (lambda data: fluid_file([("a.w_0", np.zeros(2))], count=2**60), "cut off"),
        (lambda data: data[:268] + b"NAME" + struct.pack("<Q", 2**63) + data[280:], "cut off"),
        (lambda data: data.replace(b"\x08\x05\x10\x06", b"\x08\x05\x10\x7f"), "b'NAME' expected"),
        (
            lambda data: data.replace(b"\x08\x05\x10\x06\x10\x01\x10\x05", b"\x08\x05\x10\xff\xff\xff\xff\x7f"),
            "cut off",
        ),
        (lambda data: data.replace(b"\x08\x05\x10\x06", b"\x08\x63\x10\x06"), "type 99"),
    ],
)
def test_malformed_files_of_paddle_1_6(tmp_path, damage, told):
    (tmp_path / "a.pdparams").write_bytes(damage(FLUID.read_bytes()))
    with pytest.raises(InputError, match=f"a.pdparams: not a checkpoint that can be read .*{told}"):
        read_state(tmp_path / "a.pdparams")


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_it_reads_what_paddle_writes(tmp_path, protocol):
    state = {
        "x": paddle.rand([2, 3]),
        "transposed": paddle.to_tensor(np.asfortranarray(np.arange(6).reshape(2, 3))),
        "scalar": paddle.to_tensor(1.5),
        "empty": paddle.zeros([0, 4]),
        "LR_Scheduler": {"last_epoch": 3, "last_lr": 0.1},
    }
    paddle.save(state, str(tmp_path / "a.pdopt"), protocol=protocol)
    read = read_state(tmp_path / "a.pdopt")
    assert read["LR_Scheduler"] == state["LR_Scheduler"]
    for name in ("x", "transposed", "scalar", "empty"):
        np.testing.assert_array_equal(read[name], state[name].numpy())
        assert read[name].dtype == state[name].numpy().dtype


def test_it_reads_arrays_in_any_order_of_bytes_and_axes(tmp_path):
    arrays = {
        "big endian": np.arange(6, dtype=">f8").reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype="f4").reshape(2, 3)),
        "bool": np.array([True, False]),
    }
    (tmp_path / "a").write_bytes(pickle.dumps({**arrays, "number": np.float32(2.5)}, protocol=4))
    read = read_state(tmp_path / "a")
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
    assert read["number"] == 2.5


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function, *args, state=None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.reduced


def hostile_pickles(target):
    """Pickles that would write `target`, each in another way, or exhaust the memory."""
    write = f"open({str(target)!r}, 'w').write('x')"
    shell = f'{sys.executable} -c "{write}"'
    array = np.zeros(2, "f4")
    nested = {"conv1.weight": array, "LR_Scheduler": {"last_lr": Call(exec, write)}}
    return {
        "os.system": {"a": Call(os.system, shell)},
        "exec": {"a": Call(exec, write)},
        "eval": Call(eval, write),
        "subprocess": [Call(subprocess.call, [sys.executable, "-c", write])],
        "nested": nested,
        "key": {Call(exec, write): 1},
        "open": {"a": Call(open, str(target), "w")},
        "import": {"a": Call(__import__, "antigravity")},
        "getattr": {"a": Call(getattr, Call(__import__, "os"), "system")},
        "tuple of a call": {"a": Call(tuple, Call(exec, write))},
        "numpy's loader": {"a": Call(np.load, str(target))},
        "state of a type": {"a": Call(Call, exec, write)},
    }


def raw_pickles(target):
    """Pickles that no Python object gives: opcodes written by hand."""
    write = f"open({str(target)!r}, 'w').write('x')".encode()
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    dtype = b"cnumpy\ndtype\n(S'f4'\nI00\nI01\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
    return {
        "inst": b"(S'" + write.replace(b"'", b"\\'") + b"'\nibuiltins\nexec\n.",
        "obj": b"(cbuiltins\nexec\nS'x'\no.",
        "dotted name": b"\x80\x04\x8c\x08builtins\x8c\x0dtuple.__new__\x93.",
        "copyreg": b"ccopyreg\n_reconstructor\n(cbuiltins\nobject\ncbuiltins\nobject\nNtR.",
        "extension": b"\x80\x02\x82\x01.",
        "state of what is admitted": b"cbuiltins\ntuple\n}S'call'\nI1\nsb.",
        "attributes of what is admitted": b"cbuiltins\ntuple\n(N}S'call'\nI1\nstb.",
        "new of what is admitted": b"cnumpy\nndarray\n)\x81.",
        "terabytes": b"}S'a'\n" + array + b"(I1\n(L1000000000000L\nt" + dtype + b"I00\nS'xxxx'\ntbs.",
        "negative shape": b"}S'a'\n" + array + b"(I1\n(I-1\nI-1\nt" + dtype + b"I00\nS'xxxx'\ntbs.",
        "objects": b"}S'a'\n" + array + b"(I1\n(I1\nt" + dtype.replace(b"'f4'", b"'O8'") + b"I00\nS'xxxxxxxx'\ntbs.",
        "bytes that are not there": b"\x80\x04\x8e" + struct.pack("<Q", 2**50) + b"abc.",
        "itself": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
        "deep": b"\x80\x02" + b"}X\x01\x00\x00\x00a" * 5000 + b"}" + b"s" * 5000 + b".",
        "persistent": b"Pabc\n.",
    }


def test_hostile_pickles_are_refused_and_nothing_is_run(tmp_path):
    target = tmp_path / "written"
    files = {name: pickle.dumps(value, protocol=4) for name, value in hostile_pickles(target).items()}
    files |= {f"{name}, protocol 2": pickle.dumps(value, protocol=2) for name, value in hostile_pickles(target).items()}
    files |= raw_pickles(target)
    modules = set(sys.modules)
    for name, content in files.items():
        (tmp_path / "a.pdparams").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.pdparams: not a checkpoint that can be read"):
            read_state(tmp_path / "a.pdparams")
        assert not target.exists(), name
    assert "antigravity" not in set(sys.modules) - modules
    np.testing.assert_array_equal(read_after(tmp_path), np.arange(3))  # and the stand-ins still do their work


@pytest.mark.parametrize("claim", [b"}r\xff\xff\xff\xff.", b"\x95" + struct.pack("<Q", 2**62) + b"}."])
def test_memos_and_frames_that_are_merely_claimed_cost_no_memory(tmp_path, claim):
    (tmp_path / "a").write_bytes(b"\x80\x04" + claim)  # the unpickler in C would allocate 64 GB for the first
    assert read_state(tmp_path / "a") == {}


def read_after(tmp_path):
    (tmp_path / "b").write_bytes(pickle.dumps({"a": np.arange(3)}, protocol=4))
    return read_state(tmp_path / "b")["a"]


def test_the_hostile_pickles_would_do_harm_elsewhere(tmp_path):
    """Or the test above would prove nothing."""
    target = tmp_path / "written"
    for name in ("exec", "nested"):
        pickle.loads(pickle.dumps(hostile_pickles(target)[name]))
        assert target.exists()
        target.unlink()


@pytest.mark.parametrize("content", [[1, 2], "text", {"a": [1]}, {1: 2}, {"a": {1, 2}}, {"a": b"bytes"}, None])
def test_what_is_no_state_dictionary_is_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(InputError, match="it holds|a name that is"):
        read_state(tmp_path / "a")


def test_integers_do_not_pass_for_weights_and_other_floats_are_converted(tmp_path):
    model, other = network(0), network(1)
    state = {name: value.astype("float64") for name, value in weights(model).items()}
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(state, protocol=4))
    load(tmp_path / "a", other)
    assert_same(weights(other), weights(model))
    state["fc2.bias"] = state["fc2.bias"].astype("int64")
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(state, protocol=4))
    with pytest.raises(InputError, match=r"of another type: fc2.bias int64 \(expected float32\)"):
        load(tmp_path / "a", other)


def test_a_learning_rate_schedule_comes_back(tmp_path):
    def scheduled(model):
        schedule = paddle.optimizer.lr.StepDecay(0.1, step_size=1, gamma=0.5)
        return schedule, paddle.optimizer.Momentum(schedule, 0.9, parameters=model.parameters())

    model, other = network(0), network(1)
    schedule, optimizer = scheduled(model)
    step(model, optimizer, 0)
    schedule.step()
    save(tmp_path / "a", model, optimizer)
    _, other_optimizer = scheduled(other)
    load(tmp_path / "a", other, other_optimizer)
    assert other_optimizer.get_lr() == optimizer.get_lr() == 0.05
