import numpy as np
import pytest
from helpers.checkpoints import assert_same, weights
from helpers.hostile import safetensors, torch_state, with_table

from palm_cls.checkpoints import torch_weights
from palm_cls.checkpoints.torch_weights import read_arrays
from palm_cls.checkpoints.weights import load, save
from palm_cls.core.errors import InputError

import paddle


class Small(paddle.nn.Layer):
    """A network that torch has, too, with a square matrix, of which only the answer tells how it lies."""

    torch_layers = {"features.0": "conv", "classifier.1": "fc1", "classifier.3": "fc2"}

    def __init__(self, num_classes=3):
        super().__init__()
        self.conv = paddle.nn.Conv2D(1, 2, 3)
        self.fc1 = paddle.nn.Linear(8, 8)
        self.fc2 = paddle.nn.Linear(8, num_classes)

    def forward(self, x):
        return self.fc2(self.fc1(paddle.flatten(self.conv(x), 1)))


def write(path, state):
    if path.suffix == ".npz":
        np.savez(path, **state)
    else:
        path.write_bytes(safetensors(state))
    return path


@pytest.fixture(params=torch_weights.SUFFIXES)
def path(request, tmp_path):
    return tmp_path / f"weights{request.param}"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_what_was_written_is_read(path, dtype):
    state = torch_state(dtype=dtype)
    found = read_arrays(write(path, state))
    assert_same(found, state)
    assert {value.dtype for value in found.values()} == {np.dtype(dtype)}


def test_compressed_npz_is_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **torch_state())
    assert_same(read_arrays(tmp_path / "a.npz"), torch_state())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_network_with_torchs_weights_answers_as_torch_does(path, dtype):
    state = torch_state(dtype=dtype)
    model = Small()
    load(write(path, state), model)
    img = np.random.RandomState(1).randn(1, 1, 4, 4)
    windows = np.lib.stride_tricks.sliding_window_view(img[0, 0], (3, 3))
    x = np.tensordot(state["features.0.weight"][:, 0], windows, ((1, 2), (2, 3)))
    x = (x + state["features.0.bias"][:, None, None]).flatten()
    for layer in ("classifier.1", "classifier.3"):
        x = state[f"{layer}.weight"] @ x + state[f"{layer}.bias"]
    np.testing.assert_allclose(model(paddle.to_tensor(img.astype("float32"))).numpy()[0], x, rtol=1e-4)
    assert model.fc1.weight.dtype == paddle.float32


@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_bfloat16_and_a_prefix_of_torch_are_taken(path, prefix):
    state = {name: (value.view("uint32") >> 16).astype("uint16") for name, value in torch_state().items()}
    model, cut = Small(), {name: (bits.astype("uint32") << 16).view("float32") for name, bits in state.items()}
    load(write(path, {f"{prefix}{name}": bits for name, bits in state.items()}), model)
    np.testing.assert_array_equal(weights(model)["conv.weight"], cut["features.0.weight"])
    np.testing.assert_array_equal(weights(model)["fc1.weight"], cut["classifier.1.weight"].T)


def changed(**arrays):
    return {name: value for name, value in {**torch_state(), **arrays}.items() if value is not None}


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (changed(**{"features.0.bias": None}), r"missing: features\.0\.bias$"),
        (changed(**{"conv.weight": np.ones((2, 1, 3, 3))}), r"unexpected: conv\.weight$"),
        (changed(**{"classifier.1.weight": np.ones((8, 9))}), r"classifier\.1\.weight \[8, 9\] \(expected \[8, 8\]\)"),
        (
            changed(**{"classifier.1.bias": np.ones(8, "int64")}),
            r"type: classifier\.1\.bias int64 \(expected float32\)",
        ),
        ({}, r"missing: features\.0\.weight, features\.0\.bias, .* and 1 more$"),
    ],
)
def test_wrong_weights_are_refused_by_torchs_names_and_change_nothing(path, state, told):
    model = Small()
    before = weights(model)
    with pytest.raises(InputError, match=rf"{path.name}: weights of another network\. .*{told}"):
        load(write(path, state), model)
    assert_same(weights(model), before)


def test_other_classes_are_taken_only_where_that_is_said(path, capsys):
    state = torch_state(classes=1000)
    model = Small(num_classes=1)
    before = weights(model)
    with pytest.raises(InputError, match=r"\[1000, 8\] \(expected \[1, 8\]\)[^\n]*\nOnly .* skip_head=True"):
        load(write(path, state), model)
    assert_same(weights(model), before)

    load(path, model, skip_head=True)
    found = weights(model)
    for name in ("fc2.weight", "fc2.bias"):
        np.testing.assert_array_equal(found[name], before[name])
    np.testing.assert_array_equal(found["fc1.weight"], state["classifier.1.weight"].T)
    np.testing.assert_array_equal(found["conv.weight"], state["features.0.weight"])
    assert capsys.readouterr().err == f"{path}: loaded, except for the last layer (fc2), which stays as it was.\n"
    with pytest.raises(InputError, match=r"missing: features\.0\.bias$"):
        load(write(path, {k: v for k, v in state.items() if k != "features.0.bias"}), model, skip_head=True)


def test_a_new_head_on_weights_of_our_own(tmp_path):
    save(tmp_path / "three", Small(3))
    model = Small(1)
    before = weights(model)
    with pytest.raises(InputError, match="skip_head=True"):
        load(tmp_path / "three", model)
    load(tmp_path / "three", model, skip_head=True)
    np.testing.assert_array_equal(weights(model)["fc2.weight"], before["fc2.weight"])
    assert (weights(model)["fc1.weight"] != before["fc1.weight"]).any()


def test_a_network_that_torch_has_not_takes_no_such_file(path):
    with pytest.raises(InputError, match="weights of torch, which this network does not take"):
        load(write(path, torch_state()), paddle.nn.Linear(2, 2))


def one(**entry):
    return safetensors({"a": np.ones(2, "float32")}, {"a": {**ENTRY, **entry}})


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
GOOD = safetensors({"a": np.ones(2, "float32")})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "a table of 0 bytes in a file of 0"),
        (b"\xff" * 8 + GOOD[8:], "a table of 18446744073709551615 bytes"),
        (GOOD[:-1], "cannot reshape|must be a multiple"),
        (GOOD + b"x", "take 8 bytes, and there are 9"),
        (one(dtype="F8_E4M3"), "a is of type F8_E4M3; float32 is expected"),
        (one(dtype=["F32"]), "unhashable"),
        (one(shape=[3]), "cannot reshape"),
        (one(shape=[-1]), r"a is of shape \[-1\]"),
        (one(shape=[2] + [1] * 8), r"a is of shape \[2, 1"),
        (one(shape="2"), "a is of shape 2"),
        (one(data_offsets=[4, 12]), "does not begin where the array before it ends"),
        (one(data_offsets=[0, -8]), "cannot reshape"),
        (one(data_offsets=[0, 8, 16]), "unpack"),
        (safetensors({"a": np.ones(2)}, {"b": ENTRY}), "does not begin where"),  # two arrays, one upon the other
        (GOOD.replace(b'"__metadata__"', b'"a"           '), "a name twice"),
        (with_table(b"[1, 2]"), "expected at most 1"),
        (with_table(b"[" * 100_000), "recursion"),
    ],
)
def test_a_safetensors_file_that_claims_what_is_not_so_is_refused(tmp_path, content, told):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.safetensors: not a \.safetensors file that can be read \(.*({told})"):
        read_arrays(path)
    path.write_bytes(GOOD)
    assert_same(read_arrays(path), {"a": np.ones(2, "float32")})


class Evil:
    def __reduce__(self):
        return print, ("run",)


def test_an_npz_that_holds_a_pickle_is_refused_and_not_run(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", **{"features.0.weight": np.array([Evil()], dtype=object)})
    with pytest.raises(InputError, match=r"a\.npz: not a \.npz file .*pickled objects, which were not read"):
        read_arrays(tmp_path / "a.npz")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_a_damaged_npz_is_named(tmp_path, damage):
    np.savez(tmp_path / "a.npz", **torch_state())
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[: len(content) // 2] if damage is None else damage)
    with pytest.raises(InputError, match=r"a\.npz: not a \.npz file that can be read"):
        read_arrays(tmp_path / "a.npz")


def test_what_is_far_too_large_is_not_unpacked(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(1_000_000, "float32"))
    assert (tmp_path / "a.npz").stat().st_size < 10_000
    monkeypatch.setattr(torch_weights, "MAX_BYTES", 100_000)
    with pytest.raises(InputError, match="bytes, where 100000 would be many"):
        read_arrays(tmp_path / "a.npz")
