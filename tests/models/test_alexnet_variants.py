import numpy as np
import pytest
from helpers import recipes
from helpers.networks import conv

from palm_cls.checkpoints.weights import load
from palm_cls.core import device
from palm_cls.models.alexnet_variants import AlexNetKeras, AlexNetPaper, AlexNetTorchvision, LocalResponseNorm
from palm_cls.models.summary import parameter_count

import paddle

PAPER = {"size": 5, "k": 2, "alpha": 1e-4, "beta": 0.75}
TENSORFLOW = {"size": 11, "k": 1, "alpha": 1, "beta": 0.5}

# torchvision's AlexNet with the weights of `torch_weights`, computed by torch 2.13 in float64, for
# recipes.palm_batch(1000, n=2) and four classes.
TORCH_LOGITS = [
    [0.466700208794, -0.925976028289, 0.740589131442, -0.778765469061],
    [0.650988907621, -0.878078626336, 0.658718959356, -0.713026783550],
]
TORCH_SHAPES = {
    "features.0": (64, 3, 11, 11),
    "features.3": (192, 64, 5, 5),
    "features.6": (384, 192, 3, 3),
    "features.8": (256, 384, 3, 3),
    "features.10": (256, 256, 3, 3),
    "classifier.1": (4096, 9216),
    "classifier.4": (4096, 4096),
    "classifier.6": (4, 4096),
}


def torch_weights():
    """Bytes from a seed, as weights of torchvision's AlexNet: of about He's variance, and exact in float16."""
    rng = np.random.RandomState(0)
    state = {}
    for layer, shape in TORCH_SHAPES.items():
        deviation = (2 / np.prod(shape[1:])) ** 0.5
        scale = 2.0 ** np.round(np.log2(deviation / 74))  # 74: the deviation of a byte with a sign
        for kind, size, unit in (("weight", shape, scale), ("bias", shape[:1], 2.0**-10)):
            values = np.frombuffer(rng.bytes(int(np.prod(size))), "int8").reshape(size)
            state[f"{layer}.{kind}"] = values.astype("float32") * np.float32(unit)
    return state


@pytest.mark.slow
def test_with_torchvisions_weights_it_gives_torchs_logits(tmp_path):
    np.savez(tmp_path / "alexnet.npz", **torch_weights())
    model = AlexNetTorchvision(num_classes=4)
    load(tmp_path / "alexnet.npz", model)
    model.eval()
    with paddle.no_grad():
        logits = model(paddle.to_tensor(recipes.palm_batch(1000, n=2)[0])).numpy()
    np.testing.assert_allclose(logits, TORCH_LOGITS, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "count"),
    [(AlexNetPaper, 60_965_224), (AlexNetTorchvision, 61_100_840), (AlexNetKeras, 62_378_344)],
)
def test_parameters_at_the_1000_classes_of_imagenet(network, count):
    with paddle.LazyGuard():  # shapes without memory
        assert parameter_count(network(num_classes=1000)) == count


def normalised(x, size, k, alpha, beta):
    """The paper's formula, in plain loops over the channels."""
    result = np.empty_like(x)
    for i in range(x.shape[1]):
        around = x[:, max(0, i - size // 2) : i + size // 2 + 1]
        result[:, i] = x[:, i] / (k + alpha * (around**2).sum(1)) ** beta
    return result


@pytest.mark.parametrize("settings", [PAPER, {**PAPER, "alpha": 0.5}, TENSORFLOW])
@pytest.mark.parametrize("channels", [3, 12])
def test_local_response_normalisation_is_the_papers(settings, channels):
    x = np.random.RandomState(0).randn(2, channels, 4, 3)
    found = LocalResponseNorm(**settings)(paddle.to_tensor(x))
    assert found.dtype == paddle.float64
    np.testing.assert_allclose(found.numpy(), normalised(x, **settings), rtol=1e-12)


@pytest.mark.parametrize("settings", [{**PAPER, "alpha": 0.5}, TENSORFLOW])
def test_the_gradient_of_the_normalisation_is_what_finite_differences_give(settings):
    rng = np.random.RandomState(0)
    x, factors = rng.randn(1, 7, 2, 1), rng.randn(1, 7, 2, 1)
    tensor = paddle.to_tensor(x, stop_gradient=False)
    (LocalResponseNorm(**settings)(tensor) * paddle.to_tensor(factors)).sum().backward()
    step, expected = 1e-6, []
    for place in np.eye(x.size).reshape(-1, *x.shape):
        ends = [(normalised(x + sign * step * place, **settings) * factors).sum() for sign in (1, -1)]
        expected.append((ends[0] - ends[1]) / (2 * step))
    np.testing.assert_allclose(tensor.grad.numpy().flatten(), expected, rtol=1e-6, atol=1e-9)


def test_a_normalisation_with_another_power_is_refused():
    with pytest.raises(ValueError, match=r"beta 1 is neither 0\.5 nor 0\.75"):
        LocalResponseNorm(5, k=1, alpha=1, beta=1)


def pooled(x, size):
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (2, 3))
    return windows[:, :, ::2, ::2].max((4, 5))


def grouped(x, weight, bias, padding):
    halves = zip(np.split(x, 2, 1), np.split(weight, 2), np.split(bias, 2))
    return np.concatenate([conv(*half, padding=padding) for half in halves], 1)


def paper(x, p):
    """AlexNet as the paper defines it, in plain NumPy."""
    x = np.maximum(conv(x, *p("conv1"), stride=4, padding=2), 0)
    x = pooled(normalised(x, **PAPER), 3)
    x = np.maximum(grouped(x, *p("conv2"), padding=2), 0)
    x = pooled(normalised(x, **PAPER), 3)
    x = np.maximum(conv(x, *p("conv3"), padding=1), 0)
    x = np.maximum(grouped(x, *p("conv4"), padding=1), 0)
    return pooled(np.maximum(grouped(x, *p("conv5"), padding=1), 0), 3)


def keras(x, p):
    """AlexNet as Keras code has it, in plain NumPy."""
    x = np.pad(x, ((0, 0), (0, 0), (3, 0), (3, 0)))
    x = normalised(conv(x, *p("conv1"), stride=4), **TENSORFLOW)
    x = normalised(conv(pooled(np.maximum(x, 0), 2), *p("conv2"), padding=2), **TENSORFLOW)
    x = conv(pooled(np.maximum(x, 0), 2), *p("conv3"), padding=1)
    x = conv(conv(x, *p("conv4"), padding=1), *p("conv5"), padding=1)
    return pooled(np.maximum(x, 0), 2)


def assert_normal(value, deviation):
    assert value.std() == pytest.approx(deviation, rel=0.02)
    assert abs(value.mean()) < deviation / 20
    assert abs(value).max() > 3 * deviation


def assert_uniform(value, limit):
    assert abs(value).max() == pytest.approx(limit, rel=1e-3)
    assert abs(value).mean() == pytest.approx(limit / 2, rel=0.02)


@pytest.mark.parametrize(
    ("network", "define", "ones"),
    [
        (AlexNetPaper, paper, ("conv2", "conv4", "conv5", "fc1", "fc2")),
        pytest.param(AlexNetKeras, keras, (), marks=pytest.mark.slow),
    ],
)
def test_it_starts_and_computes_as_defined(network, define, ones):
    """Against the definition in plain NumPy, in float64, where no rounding flips a ReLU."""
    device.set_seed(0)
    model = network()
    state = {name: value.numpy() for name, value in model.named_parameters()}
    for layer in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc1", "fc2", "fc3"):
        assert (state[f"{layer}.bias"] == (layer in ones)).all()
        if layer == "fc3" and network is AlexNetKeras:
            assert_uniform(state["fc3.weight"], (6 / 4097) ** 0.5)
        elif layer != "fc3":
            assert_normal(state[f"{layer}.weight"], 0.01)

    def parameters(layer):
        return [state[f"{layer}.{kind}"].astype("float64") for kind in ("weight", "bias")]

    imgs = recipes.palm_batch(1000, n=1)[0].astype("float64")
    x = define(imgs, parameters).reshape(1, -1)
    for layer in ("fc1", "fc2"):
        weight, bias = parameters(layer)
        x = np.maximum(x @ weight + bias, 0)
    weight, bias = parameters("fc3")
    model.to(dtype="float64")
    model.eval()
    with paddle.no_grad():
        np.testing.assert_allclose(model(paddle.to_tensor(imgs)).numpy(), x @ weight + bias, rtol=1e-9)


def test_torchvisions_starts_as_torch_draws():
    device.set_seed(0)
    for name, value in AlexNetTorchvision().named_parameters():
        if name.endswith("weight"):
            fan_in = value.shape[0] if len(value.shape) == 2 else np.prod(value.shape[1:])
        if value.size > 4000:
            assert_uniform(value.numpy(), fan_in**-0.5)
        else:
            assert 0 < abs(value.numpy()).max() <= fan_in**-0.5
