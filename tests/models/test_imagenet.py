import numpy as np
import pytest
from helpers import tiny  # noqa: F401  the recipe

from palm_cls.checkpoints import pretrained
from palm_cls.checkpoints.pretrained import load_pretrained
from palm_cls.checkpoints.run_files import read_settings
from palm_cls.checkpoints.weights import load, save
from palm_cls.core import device
from palm_cls.core.errors import InputError
from palm_cls.core.files import file_digest
from palm_cls.eval.losses import cross_entropy, training_loss
from palm_cls.models import imagenet
from palm_cls.models.lenet import LeNet
from palm_cls.recipes import build_model
from palm_cls.training import experiment
from palm_cls.training.experiment import resume_recipe, train, train_recipe
from palm_cls.training.multi_seed import train_seeds

import paddle

IMG = np.random.RandomState(0).uniform(-1, 1, (2, 3, 224, 224)).astype("float32")
LABELS = np.array([[0], [1]], "float32")


@pytest.fixture(scope="module")
def googlenet():
    device.set_seed(0)
    return imagenet.GoogLeNet()


def test_googlenets_auxiliary_heads_count_in_training_and_are_gone_in_evaluation(googlenet):
    imgs, labels = paddle.to_tensor(IMG), paddle.to_tensor(LABELS)
    googlenet.train()
    outputs = googlenet(imgs)
    assert [output.shape for output in outputs] == [[2, 1]] * 3
    loss, logits = training_loss(outputs, labels)
    losses = [cross_entropy(output, labels).item() for output in outputs]
    assert loss.item() == pytest.approx(losses[0] + 0.3 * losses[1] + 0.3 * losses[2], rel=1e-6)
    assert logits is outputs[0]
    googlenet.eval()
    assert googlenet(imgs).shape == [2, 1]


def test_the_training_loop_takes_a_network_with_auxiliary_heads(googlenet):
    def reader():
        yield IMG, LABELS

    before = {name: value.numpy() for name, value in googlenet.state_dict().items()}
    (record,) = train(googlenet, reader, reader, epochs=1, learning_rate=1e-5)
    assert record["train_loss"] > record["valid_loss"]  # three losses in one
    after = googlenet.state_dict()
    assert all(
        (before[f"{head}.weight"] != after[f"{head}.weight"].numpy()).any() for head in googlenet.classifier_layers
    )
    googlenet.set_state_dict(before)


def test_its_weights_are_told_from_those_of_others(googlenet, tmp_path):
    save(tmp_path / "a", googlenet)
    with pytest.raises(InputError, match=r"weights of another network \(googlenet\)"):
        load(tmp_path / "a", LeNet(image_size=28))


@pytest.fixture
def offered(tmp_path, monkeypatch):
    """A function that puts the state of a network where ImageNet's weights of GoogLeNet are downloaded from."""
    monkeypatch.setattr(pretrained, "WEIGHTS_HOME", str(tmp_path / "home" / "weights"))

    def offer(model, change=None):
        file = tmp_path / "GoogLeNet.pdparams"
        state = {name: value.numpy() for name, value in model.state_dict().items()}
        paddle.save({**state, **(change or {})}, str(file))
        monkeypatch.setitem(pretrained.WEIGHTS, "googlenet", (file.as_uri(), file_digest(file, algorithm="md5")))
        return file

    return offer


def test_imagenets_weights_are_taken_but_for_the_heads(offered, capsys):
    theirs = imagenet.GoogLeNet(num_classes=1000)
    file = offered(theirs, {"what.else": np.ones(2)})
    device.set_seed(1)
    model = build_model("googlenet")
    load_pretrained(model, "googlenet")
    fresh = build_model("googlenet").state_dict()
    expected = theirs.state_dict()
    for name, value in model.state_dict().items():
        if name.rpartition(".")[0] in model.classifier_layers:
            assert value.shape == fresh[name].shape
        else:
            np.testing.assert_array_equal(value.numpy(), expected[name].numpy())
    told = capsys.readouterr().err
    assert "Fetching file://" in told
    assert "starts from ImageNet's weights, except for the last layer (_fc_out, _out1, _out2), which is new." in told

    file.unlink()  # it was kept
    load_pretrained(build_model("googlenet"), "googlenet")
    assert "Fetching" not in capsys.readouterr().err


def test_weights_that_are_not_what_they_should_be_are_refused(offered, tmp_path, googlenet):
    offered(googlenet, {"_conv._conv.weight": np.ones(3, "float32")})
    with pytest.raises(InputError, match=r"not the weights of googlenet; .* another shape: _conv\._conv\.weight$"):
        load_pretrained(build_model("googlenet"), "googlenet")
    (file,) = (tmp_path / "home" / "weights").iterdir()
    file.write_bytes(b"something else")
    with pytest.raises(InputError, match="damaged, or another file; delete it"):
        load_pretrained(build_model("googlenet"), "googlenet")


def test_without_a_network_one_is_told_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(pretrained, "WEIGHTS_HOME", str(tmp_path / "weights"))
    monkeypatch.setitem(pretrained.WEIGHTS, "googlenet", ("http://nowhere.invalid/GoogLeNet.pdparams", "0"))
    with pytest.raises(InputError, match=r"nowhere\.invalid/.* could not be fetched .*\n.* put the file into "):
        load_pretrained(build_model("googlenet"), "googlenet")
    assert not (tmp_path / "weights").exists()


def test_a_network_without_such_weights_says_so():
    with pytest.raises(InputError, match="'lenet' has no ImageNet weights; vgg16, googlenet, resnet50 have"):
        load_pretrained(build_model("lenet"), "lenet")


def test_a_run_begins_with_them_and_only_then(small_demo, tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(experiment, "load_pretrained", lambda model, name: taken.append(name))
    options = {"data": small_demo, "device": "cpu", "report": False}
    train_recipe("tiny", pretrained=True, output=tmp_path / "run", **options)
    assert taken == ["tiny"]
    resume_recipe(tmp_path / "run", epochs=2, report=False)
    assert taken == ["tiny"]
    assert read_settings(tmp_path / "run")["pretrained"] is True
    train_seeds("tiny", [1, 2], pretrained=True, output=tmp_path / "seeds", **options)
    assert taken == ["tiny"] * 4  # once to see that they are to be had, before anything is moved


def test_what_has_none_is_refused_before_anything_is_moved(small_demo, tmp_path):
    for begin in (train_recipe, lambda *args, **options: train_seeds(args[0], [0], **options)):
        with pytest.raises(InputError, match="has no ImageNet weights"):
            begin("tiny", data=small_demo, device="cpu", output=tmp_path / "run", pretrained=True)
    assert not (tmp_path / "run").exists()
