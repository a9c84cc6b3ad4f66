import numpy as np
import paddle
import pytest

from palm_cls.checkpoint import load, save, weights_file
from palm_cls.messages import InputError
from palm_cls.models import LeNet


def network(seed):
    paddle.seed(seed)
    return LeNet(num_classes=2, in_channels=1, image_size=28)


def momentum(model):
    return paddle.optimizer.Momentum(0.01, 0.9, parameters=model.parameters())


def step(model, optimizer, seed):
    imgs = np.random.RandomState(seed).rand(4, 1, 28, 28).astype("float32")
    model(paddle.to_tensor(imgs)).square().mean().backward()
    optimizer.step()
    optimizer.clear_grad()


def weights(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


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


@pytest.mark.parametrize("damage", [b"", b"no pickle", None])
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
    assert weights_file(tmp_path) == weights_file(best) == weights_file(str(tmp_path / "best")) == best
    assert weights_file(tmp_path / "other.v2") == tmp_path / "other.v2.pdparams"
    with pytest.raises(InputError, match="no weights there; expected"):
        weights_file(tmp_path / "missing")


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
