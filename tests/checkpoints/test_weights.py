import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers.checkpoints import assert_same, momentum, network, step, weights
from hypothesis import given, settings
from hypothesis import strategies as st

from palm_cls.checkpoints.state_pickle import read_state
from palm_cls.checkpoints.weights import load, resolve_weights, save
from palm_cls.core.errors import InputError
from palm_cls.eval.engine import save_program
from palm_cls.models.lenet import LeNet

import paddle


def test_plain_paddle_reads_what_save_writes(tmp_path):
    model = network(0)
    optimizer = momentum(model)
    step(model, optimizer, 0)
    save(tmp_path / "last", model, optimizer)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pdopt", "last.pdparams"]

    other = network(1)
    other.set_state_dict(paddle.load(str(tmp_path / "last.pdparams")))
    assert_same(weights(other), weights(model))
    velocities = paddle.load(str(tmp_path / "last.pdopt"))
    assert set(velocities) == {f"{name}.velocity" for name, _ in model.named_parameters()}


@pytest.mark.parametrize("stepped", [False, True])
def test_training_goes_on_as_if_never_interrupted(tmp_path, stepped):
    """Weights and velocities come back, in another network of the same process, whose slots paddle numbers on."""
    model = network(0)
    optimizer = momentum(model)
    for seed in range(3):
        step(model, optimizer, seed)
    save(tmp_path / "last", model, optimizer)
    step(model, optimizer, 3)

    other = network(1)
    other_optimizer = momentum(other)
    if stepped:  # its velocities are there already
        step(other, other_optimizer, 9)
    load(tmp_path / "last", other, other_optimizer)
    step(other, other_optimizer, 3)
    assert_same(weights(other), weights(model))


def test_running_means_have_no_velocity_and_come_back(tmp_path):
    def normalised():
        nn = paddle.nn
        model = nn.Sequential(nn.Conv2D(1, 2, 3), nn.BatchNorm2D(2), nn.Flatten(), nn.Linear(2 * 26 * 26, 1))
        return model, momentum(model)

    model, optimizer = normalised()
    step(model, optimizer, 0)
    save(tmp_path / "last", model, optimizer)
    step(model, optimizer, 1)
    other, other_optimizer = normalised()
    load(tmp_path / "last", other, other_optimizer)
    assert (other[1]._mean.numpy() != model[1]._mean.numpy()).all()
    step(other, other_optimizer, 1)
    assert_same(weights(other), weights(model))


def test_saving_before_the_first_step_moves_nothing(tmp_path):
    """Not even with weight decay, which moves weights, and gives them velocities, where there is no gradient."""
    model = network(0)
    optimizer = paddle.optimizer.Momentum(0.1, 0.9, parameters=model.parameters(), weight_decay=0.5)
    before = weights(model)
    save(tmp_path / "a", model, optimizer)
    assert_same(weights(model), before)
    assert not any(velocity.numpy().any() for velocity in optimizer.state_dict().values())


def test_a_second_optimizer_of_the_same_network_takes_the_velocities(tmp_path):
    model = network(0)
    optimizer = momentum(model)
    step(model, optimizer, 0)
    save(tmp_path / "last", model, optimizer)
    second = momentum(model)
    load(tmp_path / "last", model, second)
    for before, after in zip(optimizer.state_dict().values(), second.state_dict().values()):
        np.testing.assert_array_equal(after.numpy(), before.numpy())


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (
            lambda: LeNet(num_classes=3, in_channels=1, image_size=28),
            r"another shape: fc2.weight \[64, 2\] \(expected \[64, 3\]\)",
        ),
        (lambda: paddle.nn.Linear(2, 2), "missing: weight, bias; unexpected: conv1.weight"),
    ],
)
def test_weights_of_another_network_are_refused_and_change_nothing(tmp_path, other, told):
    save(tmp_path / "a", network(0))
    model = other()
    before = weights(model)
    with pytest.raises(InputError, match=rf"a\.pdparams: weights of another network\. .*{told}"):
        load(tmp_path / "a", model)
    assert_same(weights(model), before)


@pytest.mark.parametrize("damage", [b"no pickle", None])
def test_a_damaged_file_is_named(tmp_path, damage):
    model = network(0)
    save(tmp_path / "a", model)
    content = (tmp_path / "a.pdparams").read_bytes()
    (tmp_path / "a.pdparams").write_bytes(content[: len(content) // 2] if damage is None else damage)
    with pytest.raises(InputError, match=r"a\.pdparams: not a checkpoint"):
        load(tmp_path / "a", model)


def test_a_missing_optimizer_state_is_named_and_changes_nothing(tmp_path):
    save(tmp_path / "a", network(0))
    model = network(1)
    before = weights(model)
    with pytest.raises(InputError, match=r"a\.pdopt: no such file"):
        load(tmp_path / "a", model, momentum(model))
    assert_same(weights(model), before)


def test_what_a_path_of_weights_may_be(tmp_path):
    for name in ("best", "other.v2"):
        save(tmp_path / name, network(0))
    best = tmp_path / "best.pdparams"
    assert resolve_weights(tmp_path) == resolve_weights(best) == resolve_weights(str(tmp_path / "best")) == best
    assert resolve_weights(tmp_path / "other.v2") == tmp_path / "other.v2.pdparams"
    with pytest.raises(InputError, match="no weights there; expected"):
        resolve_weights(tmp_path / "missing")


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    save(tmp_path / "a", network(0))
    before = (tmp_path / "a.pdparams").read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path / "a", network(1))
    assert (tmp_path / "a.pdparams").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


WRAPPED = {
    "model": lambda state: {"model": state, "epoch": 3},
    "with the optimizer": lambda state: {"state_dict": state, "optimizer": {"fc_0.w_0_velocity_0": np.ones(2, "f4")}},
    "any name": lambda state: {"LeNet": state, "LR_Scheduler": {"last_lr": 0.1}, "losses": [0.5, 0.4]},
}
PREFIXED = ("_layers.", "module.", "0._layers.", "module._orig_mod.")


@pytest.mark.parametrize("wrap", WRAPPED)
def test_weights_that_lie_beside_other_things_are_taken(tmp_path, wrap):
    model, other = network(0), network(1)
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(WRAPPED[wrap](weights(model))))
    load(tmp_path / "a", other)
    assert_same(weights(other), weights(model))


def test_weights_that_paddle_wraps_and_a_network_of_several_gpus_are_taken(tmp_path):
    model, other = network(0), network(1)
    wrapped = paddle.nn.Sequential(paddle.DataParallel(model))
    paddle.save({"model": wrapped.state_dict(), "optimizer": momentum(model).state_dict()}, str(tmp_path / "a"))
    load(tmp_path / "a", other)
    assert_same(weights(other), weights(model))


@settings(deadline=None, max_examples=20)
@given(prefix=st.sampled_from(PREFIXED) | st.text("ab._", min_size=1).map(lambda text: f"{text}."))
def test_a_prefix_of_all_names_is_passed_over(tmp_path_factory, prefix):
    model, other = paddle.nn.Linear(2, 3), paddle.nn.Linear(2, 3)
    path = tmp_path_factory.mktemp("prefix") / "a.pdparams"
    state = {f"{prefix}{name}": value for name, value in weights(model).items()}
    path.write_bytes(pickle.dumps(state))
    load(path, other)
    assert_same(weights(other), weights(model))


def test_a_prefix_of_some_names_is_another_network(tmp_path):
    state = {f"module.{name}": value for name, value in weights(network(0)).items()}
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps({**state, "head.weight": np.ones(2, "f4")}))
    with pytest.raises(
        InputError, match=r"another network\. missing: conv1\.weight, .* unexpected: module\.conv1\.weight"
    ):
        load(tmp_path / "a", network(1))


def test_names_that_fit_are_not_taken_for_prefixed_ones(tmp_path):
    """One network in a layer of another, and its layers named alike."""

    def twice():
        model = paddle.nn.Layer()
        model.a = paddle.nn.Linear(2, 3)
        model.a.a = paddle.nn.Linear(2, 3)
        return model

    model, other = twice(), twice()
    save(tmp_path / "a", model)
    load(tmp_path / "a", other)
    assert_same(weights(other), weights(model))


def test_bfloat16_is_taken_as_paddle_saves_it(tmp_path):
    model, other = network(0), network(1)
    state = {name: value.astype("bfloat16") for name, value in model.state_dict().items()}
    paddle.save(state, str(tmp_path / "a.pdparams"))
    assert read_state(tmp_path / "a.pdparams")["fc2.bias"].dtype == "uint16"
    load(tmp_path / "a", other)
    assert_same(weights(other), {name: value.astype("float32").numpy() for name, value in state.items()})
    for name, value in weights(model).items():
        np.testing.assert_allclose(weights(other)[name], value, rtol=2**-7)  # paddle 2.6 cuts off, 3 rounds


def test_integers_where_integers_are_expected_are_no_bfloat16(tmp_path):
    class Counted(paddle.nn.Linear):
        def __init__(self):
            super().__init__(2, 3)
            self.register_buffer("steps", paddle.to_tensor(3))

    state = {**weights(Counted()), "steps": np.array(7, "uint16")}
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(state))
    with pytest.raises(InputError, match=r"steps uint16 \(expected int64\)"):
        load(tmp_path / "a", Counted())


@pytest.mark.parametrize("saved_parallel", [False, True])
def test_the_velocities_of_a_network_of_several_gpus_fit_one_and_the_other_way_round(tmp_path, saved_parallel):
    model, other = network(0), network(1)
    optimizer = momentum(model)
    step(model, optimizer, 0)
    save(tmp_path / "a", paddle.DataParallel(model) if saved_parallel else model, optimizer)
    other_optimizer = momentum(other)
    load(tmp_path / "a", other if saved_parallel else paddle.DataParallel(other), other_optimizer)
    assert_same(weights(other), weights(model))
    for ours, theirs in zip(other_optimizer.state_dict().values(), optimizer.state_dict().values()):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_velocities_with_a_prefix_are_taken(tmp_path):
    """As versions before wrote them for a network of several GPUs."""
    model, other = network(0), network(1)
    optimizer, other_optimizer = momentum(model), momentum(other)
    step(model, optimizer, 0)
    save(tmp_path / "a", model, optimizer)
    state = paddle.load(str(tmp_path / "a.pdopt"))
    paddle.save({f"_layers.{name}": value for name, value in state.items()}, str(tmp_path / "a.pdopt"))
    load(tmp_path / "a", other, other_optimizer)
    for ours, theirs in zip(other_optimizer.state_dict().values(), optimizer.state_dict().values()):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (
            lambda state: {"model": state, "ema": state},
            r"several state dictionaries \(model, ema\); save the",
        ),
        (lambda state: {"optimizer": state}, "weights of another network"),
        (lambda state: {"outer": {"model": state}}, "weights of another network"),
        (
            lambda state: {"model": paddle.nn.ReLU},
            r"asks for paddle\..*ReLU, which was not run: a whole pickled",
        ),
        (
            lambda state: pickle.PickleBuffer,
            r"asks for .*, which was not run: a whole .* paddle\.save\(model\.state_dict",
        ),
    ],
)
def test_what_else_a_dictionary_may_hold_is_named(tmp_path, state, told):
    model = network(0)
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(state(weights(model))))
    before = weights(model)
    with pytest.raises(InputError, match=told):
        load(tmp_path / "a", model)
    assert_same(weights(model), before)


def torch_file():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    return stream.getvalue()


NO_WEIGHTS = {
    b"": r"an empty file, not weights; .*write paddle\.save\(model\.state_dict\(\), PATH\)",
    torch_file(): "a file of torch.save, not weights; in torch, .*safetensors",
    pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2): "a file of torch.save, not weights; in torch, .*safetensors",
    b"<!DOCTYPE html><html>404": "a web page, not weights; download the file itself",
    b"version https://git-lfs.github.com/spec/v1\n": "a Git LFS pointer, not weights; .*git lfs pull",
    b"\x1f\x8b\x08": "a gzip file .* not weights; expected a .pdparams file",
    b"PK\3\4" + bytes(30): "a zip archive, not weights",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, not weights",
    b"\xff\xd8\xff\xe0": "an image, not weights",
}


@pytest.mark.parametrize("content", NO_WEIGHTS, ids=[told.partition(",")[0] for told in NO_WEIGHTS.values()])
@pytest.mark.parametrize("name", ["a.pdparams", "best.pdparams", "a.safetensors", "a.npz", "a.pth"])
def test_a_file_that_is_something_else_is_named(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    path = tmp_path if name == "best.pdparams" else tmp_path / name
    if path.suffix == ".npz" and NO_WEIGHTS[content].startswith("a zip"):  # which it is
        assert resolve_weights(path) == path
        return
    with pytest.raises(InputError, match=f"{name}: {NO_WEIGHTS[content]}"):
        resolve_weights(path)


def test_a_program_for_paddle_inference_is_named(tmp_path):
    program = save_program(network(0), tmp_path / "inference", [1, 28, 28])
    for path in (program, program.with_suffix(".pdiparams"), program.with_suffix(""), tmp_path):
        with pytest.raises(InputError, match="program for Paddle Inference, not weights; give the weights"):
            resolve_weights(path)
    save(tmp_path / "best", network(0))  # beside which somebody has exported it
    assert resolve_weights(tmp_path) == tmp_path / "best.pdparams"


def test_an_export_is_named(tmp_path):
    (tmp_path / "best.paddle").mkdir()
    for path in (tmp_path / "best.onnx", Path(tmp_path, "best.paddle", "about.json")):
        path.write_text("{}")
    for name in ("best.onnx", "best.paddle"):
        with pytest.raises(InputError, match=f"{name}: an exported network, not weights; give the weights that it was"):
            resolve_weights(tmp_path / name)
