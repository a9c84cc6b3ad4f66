"""Runs and weights of earlier versions still resume, load and predict.

tests/golden/earlier-run was written before the package had rooms, under PaddlePaddle 2.6.2: recipe "tiny" on a demo set
of 20 and 10 images, 2 epochs of 2 steps, interrupted after step 3.
"""

import hashlib
import json
import shutil

import numpy as np
import pytest
from helpers import (
    TESTS,
    tiny,  # noqa: F401  the recipe
)
from helpers.checkpoints import ON_DEMO_SET
from scipy.special import expit

import palm_cls
from palm_cls.checkpoints.metadata import read_metadata
from palm_cls.checkpoints.run_dir import list_checkpoints, read_checkpoint
from palm_cls.checkpoints.weights import load, save
from palm_cls.core.errors import InputError
from palm_cls.data.images import read_image, transform_img
from palm_cls.data.loader_factory import palm_loaders
from palm_cls.data.palm import find_dataset
from palm_cls.deploy.predict import load_model, predict_images
from palm_cls.eval.assess import assess
from palm_cls.eval.engine import predict
from palm_cls.eval.evaluate import evaluation
from palm_cls.recipes import build_model
from palm_cls.training.experiment import resume_recipe, train, train_recipe

EARLIER = TESTS / "golden" / "earlier-run"
# sha256 of the arrays in best.pdparams, taken by plain `pickle`
BEST = "eb9ec585eb63cc51d800e9e5d8ea366dd996797bad0be63fb3cf0e465ae6b6fd"


@pytest.fixture
def earlier_run(small_demo, tmp_path):
    """A copy of the run, in whose settings is the demo set of this session: JPEGs depend on the version of OpenCV."""
    run, settings = tmp_path / "run", json.loads((EARLIER / "settings.json").read_text())
    shutil.copytree(EARLIER, run)
    train_recipe("tiny", data=small_demo, output=tmp_path / "today", report=False)
    today = json.loads((tmp_path / "today" / "settings.json").read_text())
    own = {key: today[key] for key in ("train_sha256", "valid_sha256")}
    (run / "settings.json").write_text(json.dumps({**settings, **own, "data": str(small_demo)}))
    return run


def digest(model):
    state = sorted((name, value.numpy().tobytes()) for name, value in model.state_dict().items())
    return hashlib.sha256(repr(state).encode()).hexdigest()


def test_an_earlier_run_is_resumed_to_its_end(earlier_run, small_demo):
    before = (earlier_run / "log.csv").read_text().splitlines()
    resumed = resume_recipe(earlier_run, data=small_demo, report=False)
    header, first, second = (earlier_run / "log.csv").read_text().splitlines()
    assert [header, first] == before
    assert second.startswith("1,0.001,")
    assert [record["epoch"] for record in resumed.history] == [0, 1]
    state = read_checkpoint(list_checkpoints(earlier_run)[-1])["progress"]
    assert (state["epoch"], state["batch"], state["step"], state["samples"], state["hits"]) == (2, 0, 4, 0, 0)
    settings = json.loads((earlier_run / "settings.json").read_text())
    assert settings.keys() >= json.loads((EARLIER / "settings.json").read_text()).keys()


def test_earlier_weights_are_loaded_to_the_bit():
    model = build_model("tiny")
    palm_cls.load(EARLIER, model)
    assert digest(model) == BEST
    about = {"model": "tiny", "demo": True, "classes": ["no pathological myopia", "pathological myopia"]}
    assert about.items() <= read_metadata(EARLIER / "best.pdparams").items()


def test_earlier_weights_predict(small_demo):
    """And are as good as their log has it, up to what JPEGs differ by under another OpenCV."""
    model, _ = palm_cls.load_model(EARLIER)
    (row,) = (EARLIER / "log.csv").read_text().splitlines()[1:]
    loader = palm_cls.valid_data_loader(
        small_demo / "PALM-Validation400", palm_cls.find_dataset(small_demo).valid_labels
    )
    probabilities = [row.probability for row in palm_cls.predictions(model, [path for path, _ in loader.samples])]
    labels = np.array([label for _, label in loader.samples])
    loss = -np.log(np.where(labels, probabilities, 1 - np.array(probabilities))).mean()
    assert loss == pytest.approx(float(row.split(",")[4]), rel=1e-3)


def test_palm_of_224_pixels_is_loaded_as_what_it_is(small_demo, tmp_path):
    """The recipe took 224 pixels before it took 112, and its earliest weights did not state it."""
    photo = next((small_demo / "PALM-Validation400").glob("*.jpg"))
    model = build_model("palm", 224)
    model.eval()
    expected = predict(model, transform_img(read_image(photo))[None])[0, 0]
    for name, metadata in (("stated", {"model": "palm", **ON_DEMO_SET}), ("not", {"model": "palm"})):
        save(tmp_path / name, model, metadata=metadata)
        found, metadata = load_model(tmp_path / f"{name}.pdparams")
        assert (found.input_shape, metadata["input"]["size"]) == ((3, 224, 224), 224)
        loaded = build_model("palm")
        load(tmp_path / name, loaded)
        for network in (found, loaded):
            (prediction,) = predict_images(network, [photo])
            assert prediction.probability == pytest.approx(expit(expected), abs=1e-6)
    result = assess(tmp_path / "stated.pdparams", data=small_demo, cache=False)
    assert result.predictions.logits[result.predictions.names.index(photo.name), 0] == pytest.approx(expected, abs=1e-5)


def test_a_run_of_palm_at_224_pixels_goes_on_at_224(small_demo, tmp_path):
    train_recipe("palm", tmp_path, image_size=224, epochs=1, data=small_demo, report=False)
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings.pop("image_size") == settings["input"]["size"] == 224
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    assert resume_recipe(tmp_path, report=False).model.input_shape == (3, 224, 224)
    with pytest.raises(InputError, match="its image size is 224, not 112"):
        resume_recipe(tmp_path, image_size=112)


def test_a_loader_of_another_size_is_refused(small_demo, tmp_path):
    """PalmNet would take it, and give other numbers."""
    train_loader, valid_loader = palm_loaders(find_dataset(small_demo), batch_size=10)
    with pytest.raises(
        InputError, match="takes images of 112 x 112 pixels, .* with 224 x 224; set the loader's image_"
    ):
        train(build_model("palm"), train_loader, valid_loader, epochs=1)
    save(tmp_path / "w", build_model("palm", 224), metadata={"model": "palm", **ON_DEMO_SET})
    valid_loader.image_size = 112
    with pytest.raises(InputError, match="takes images of 224 x 224 pixels, .* with 112 x 112"):
        evaluation(build_model("palm"), tmp_path / "w", valid_loader)
    result = train_recipe(
        "palm", tmp_path / "run", weights=tmp_path / "w.pdparams", data=small_demo, epochs=1, report=False
    )
    assert result.model.input_shape == (3, 112, 112)


def test_weights_that_state_an_impossible_size_are_refused(small_demo, tmp_path):
    for size in (5000, True, "112"):
        spec = {**ON_DEMO_SET["input"], "size": size}
        save(tmp_path / "w", build_model("palm"), metadata={"model": "palm", **ON_DEMO_SET, "input": spec})
        for use in (load_model, lambda path: assess(path, data=small_demo)):
            with pytest.raises(InputError, match="takes images as .*; this program prepares them as"):
                use(tmp_path / "w.pdparams")
