"""Exported networks: what is written, that it predicts as the network does, and what is refused."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from helpers import PROJECT
from helpers.checkpoints import ON_DEMO_SET
from helpers.networks import spread_out
from helpers.processes import assert_lines, assert_refused

from palm_cls.checkpoints.weights import load, save
from palm_cls.core import device
from palm_cls.core.console import DEMO_WARNING, DISCLAIMER
from palm_cls.core.errors import InputError, RunError
from palm_cls.deploy import export
from palm_cls.deploy.export import CONVERTER, export_network
from palm_cls.deploy.exported_model import IS_PADDLE_2
from palm_cls.deploy.predict import find_images, load_model, predict_images
from palm_cls.eval.engine import TOLERANCE
from palm_cls.recipes import RECIPES, build_model, find_recipe

import paddle

needs_onnx = pytest.mark.skipif(
    not all(map(find_spec, ("onnx", "paddle2onnx", "onnxruntime"))),
    reason="needs onnx, paddle2onnx and onnxruntime: see tools/README.md",
)
FORMS = ["paddle", pytest.param("onnx", marks=needs_onnx)]
SMALL = {"palm", "lenet-mnist", "cnn-mnist", "lenet-fashion"}
PROGRAM, WEIGHTS = "inference.pdmodel" if IS_PADDLE_2 else "inference.json", "inference.pdiparams"
README = (PROJECT / "tools" / "README.md").read_text(encoding="utf-8")
ABOUT = {"model": "palm", **ON_DEMO_SET}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The file of untrained weights of the recipe palm, with the metadata that those of a run have."""
    device.set_seed(0)
    folder = tmp_path_factory.mktemp("run")
    save(folder / "best", build_model("palm"), metadata=ABOUT)
    return folder / "best.pdparams"


@pytest.fixture(scope="module")
def exported(weights, tmp_path_factory):
    """A function form -> what the weights were exported to; made once, and not to be changed."""
    folder, paths = tmp_path_factory.mktemp("exported"), {}

    def exported_to(form):
        if form not in paths:
            paths[form] = export_network(weights, form, output=folder / ("a.onnx" if form == "onnx" else "a")).path
        return paths[form]

    return exported_to


# What is written


def test_for_paddle_it_is_a_directory_with_metadata(exported):
    about = json.loads((exported("paddle") / "about.json").read_text(encoding="utf-8"))
    assert {name: about[name] for name in ABOUT} == ABOUT
    assert sorted(about["files"]) == sorted([PROGRAM, WEIGHTS])
    assert {file.name for file in exported("paddle").iterdir()} == {"about.json", *about["files"]}
    assert about["preprocessing"] == (
        "Blue, green, red of 8 bits, as cv2.imread decodes; stretched to 224 x 224 pixels by cv2.resize; "
        "0 to 255 become -1 to 1; float32 [N, 3, 224, 224]."
    )
    assert about["output"].startswith("A logit, float32 [N, 1]: 1 / (1 + exp(-logit)) is the probability of class 1")
    assert about["note"] == f"{DISCLAIMER} {DEMO_WARNING}"
    assert about["versions"]["paddle"] == paddle.__version__


@needs_onnx
def test_an_onnx_file_has_the_same_metadata_and_names_its_ends(exported):
    import onnx

    network = onnx.load(exported("onnx"))
    onnx.checker.check_model(network, full_check=True)
    properties = {entry.key: entry.value for entry in network.metadata_props}
    expected = json.loads((exported("paddle") / "about.json").read_text(encoding="utf-8"))
    assert {name: value for name, value in properties.items() if expected[name] == value}.keys() == {
        "model",
        "preprocessing",
        "output",
        "note",
    }
    for name in ("input", "classes", "demo", "versions"):
        assert json.loads(properties[name]) == expected[name]
    ends = [
        (end.name, [dim.dim_param or dim.dim_value for dim in end.type.tensor_type.shape.dim])
        for end in (*network.graph.input, *network.graph.output)
    ]
    assert ends == [("images", ["N", 3, 224, 224]), ("logits", ["N", 1])]
    assert {node.domain for node in network.graph.node} == {""}
    used = {name for node in network.graph.node for name in node.input} | {"logits"}
    assert all(used.intersection(node.output) for node in network.graph.node)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in SMALL)) for n in RECIPES])
def test_every_recipe_can_be_exported(name, form, tmp_path):
    device.set_seed(0)
    model = build_model(name)
    if name.startswith("alexnet-"):
        spread_out(model)
    save(tmp_path / "a", model)
    written = export_network(tmp_path / "a", form, name)
    assert written.path == tmp_path / f"a.{form}"
    assert 0 <= written.max_relative_error < TOLERANCE
    if find_recipe(name).dataset != "palm":
        low = find_recipe(name).pixel_range[0]
        assert written.metadata["preprocessing"].endswith(f"; 0 to 255 become {low:g} to 1; float32 [N, 1, 28, 28].")
        assert written.metadata["output"].startswith("Logits, float32 [N, 10]: their softmax")
        assert "note" not in written.metadata
        with pytest.raises(InputError, match="takes images as .*'grey'.*; this program prepares them as .*'BGR'"):
            load_model(written.path)


# It predicts as the network does


@pytest.mark.parametrize("form", FORMS)
def test_its_predictions_are_those_of_the_weights(weights, exported, form, small_demo, tmp_path):
    photos = [*sorted(small_demo.glob("PALM-Validation400/*.jpg")), tmp_path / "gone.jpg"]
    model, _ = load_model(weights)
    network, about = load_model(exported(form), "palm")
    assert {name: about[name] for name in ABOUT} == ABOUT
    expected = list(predict_images(model, photos))
    for batch_size in (1, 4):
        found = list(predict_images(network, photos, batch_size))
        assert [(row.path, row.error) for row in found] == [(row.path, row.error) for row in expected]
        chances = [[row.probability for row in rows[:-1]] for rows in (found, expected)]
        np.testing.assert_allclose(*chances, rtol=0, atol=5e-5)
    assert np.ptp(chances[0]) > 20 * 5e-5


@pytest.mark.slow
@pytest.mark.parametrize("form", ["paddle", pytest.param("onnx", marks=needs_onnx)])
def test_the_tools(tool, weights, form, small_demo, tmp_path):
    shutil.copy(weights, tmp_path / "best.pdparams")
    target = tmp_path / f"best.{form}"
    done = tool("export", "--weights", tmp_path, "--format", form, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    patterns = [
        f"written: {re.escape(str(target))}",
        r"Run in its own runtime, it gives the network's logits within \d\.\de-\d\d of the largest\.",
        "Predict with it:",
        rf"    python .*predict\.py --weights {re.escape(str(target))} PHOTOS",
    ]
    assert_lines(done.stdout, patterns)
    assert done.stderr.splitlines()[1:] == [f"{DISCLAIMER} {DEMO_WARNING}"]
    done = tool("predict", "--weights", target, small_demo / "PALM-Validation400")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    expected = list(predict_images(load_model(weights)[0], find_images([small_demo / "PALM-Validation400"])))
    assert len(rows) == len(expected)
    for row, prediction in zip(rows, expected):
        assert float(row.pop("probability")) == pytest.approx(prediction.probability, abs=5e-5)
        assert row == {
            "imgName": prediction.path.name,
            "label": str(prediction.label),
            "error": "",
            "note": f"{DISCLAIMER} {DEMO_WARNING}",
        }


@pytest.mark.slow
def test_what_an_export_cannot_do(tool_here, exported, small_demo, tmp_path):
    predict = ("predict", "--weights", exported("paddle"), small_demo / "PALM-Validation400")
    assert_refused(
        tool_here(*predict, "--cam", tmp_path / "cam"), "--cam: ", "is exported and gives no heat maps; take the"
    )
    assert_refused(tool_here(*predict, "--device", "gpu"), "is exported and runs on the CPU; leave --device out")
    evaluate = ("evaluate", "--weights", exported("paddle"))
    assert_refused(tool_here(*evaluate), "an exported network, not weights; give the weights that it was exported from")
    assert not (tmp_path / "cam").exists()


# What cannot be exported


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrong", ["other logits", "no numbers"])
def test_what_gives_other_logits_is_not_kept(weights, form, wrong, tmp_path, monkeypatch):
    model = build_model("palm")
    load(weights, model)
    if wrong == "no numbers":
        model.fc.bias.set_value(np.array([np.nan], "float32"))
    else:
        predict = export.predict
        monkeypatch.setattr(export, "predict", lambda model, imgs: predict(model, imgs) + 5e-4)
    save(tmp_path / "a", model, metadata=ABOUT)
    with pytest.raises(RunError, match=rf"a\.{form}: not written: its logits are off by (\d\.\de-04|nan) of the l"):
        export_network(tmp_path / "a", form)
    assert [file.name for file in tmp_path.iterdir()] == ["a.pdparams"]


@pytest.mark.parametrize("form", FORMS)
def test_what_cannot_be_converted_is_named(weights, form, tmp_path, monkeypatch):
    class Strange(paddle.nn.Layer):
        def forward(self, x):
            if not paddle.in_dynamic_mode():
                raise TypeError("not this one")
            return x.mean(axis=[1, 2, 3]).unsqueeze(1)

    monkeypatch.setattr(export, "load_recipe_model", lambda *_: ("palm", Strange(), ABOUT))
    with pytest.raises(RunError, match=rf"new\.{form}: not written: this network could not be exported \(\w"):
        export_network(weights, form, output=tmp_path / f"new.{form}")
    assert not list(tmp_path.iterdir())


def test_names_that_do_not_fit(weights, tmp_path):
    for form, name in (("paddle", "a.onnx"), ("onnx", "a.pdmodel")):
        with pytest.raises(InputError, match=rf"{name}: the name of an ONNX file ends in \.onnx, and no other"):
            export_network(weights, form, output=tmp_path / name)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine.onnx").write_text("mine")
    for form, name in (("paddle", "mine"), ("onnx", "mine.onnx")):
        with pytest.raises(InputError, match=rf"{name}: already there, and not overwritten"):
            export_network(weights, form, output=tmp_path / name)
    assert (tmp_path / "mine.onnx").read_text() == "mine"
    assert not list((tmp_path / "mine").iterdir())


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "paddle2onnx"])
def test_what_onnx_needs_is_named(weights, missing, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r"ONNX: .*\n.*: python -m pip install") as caught:
        export_network(weights, "onnx", output=tmp_path / "a.onnx")
    command = str(caught.value).rpartition(": ")[2]
    assert command == f"python -m pip install {CONVERTER} onnxruntime"
    assert command in README
    assert not list(tmp_path.iterdir())


@needs_onnx
def test_so_is_a_converter_for_another_paddle(weights, tmp_path, monkeypatch):
    import paddle2onnx

    monkeypatch.setattr(paddle2onnx, "__version__", "2.1.0" if IS_PADDLE_2 else "1.3.1")
    with pytest.raises(InputError, match=r"ONNX: paddle2onnx [12]\.\d\.\d is for another PaddlePaddle than "):
        export_network(weights, "onnx", output=tmp_path / "a.onnx")


@needs_onnx
def test_pip_is_not_run(tool, weights, tmp_path):
    (tmp_path / "pip.py").write_text("open(__file__ + '.was-run', 'w')")
    arguments = ("--weights", weights, "--format", "onnx", "--output", tmp_path / "a.onnx")
    done = tool("export", *arguments, PYTHONPATH=str(tmp_path), POLYGRAPHY_AUTOINSTALL_DEPS="1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.onnx").is_file()
    assert not (tmp_path / "pip.py.was-run").exists()
    subprocess.run([sys.executable, "-m", "pip"], env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=True)
    assert (tmp_path / "pip.py.was-run").exists()  # as would have shown


# What is no export of ours


@pytest.mark.parametrize("file", [PROGRAM, WEIGHTS])
def test_a_damaged_export_is_refused(exported, file, tmp_path):
    shutil.copytree(exported("paddle"), tmp_path / "a")
    content = (tmp_path / "a" / file).read_bytes()
    (tmp_path / "a" / file).write_bytes(content[:-1] + b"!")
    with pytest.raises(InputError, match=rf"{file}: missing or damaged: its checksum is not that in about\.json"):
        load_model(tmp_path / "a")
    (tmp_path / "a" / file).unlink()
    with pytest.raises(InputError, match=rf"a: .*missing; expected|{file}: missing or damaged"):
        load_model(tmp_path / "a")


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ("[" * 100000, r"about\.json: damaged"),
        ("{}", r"about\.json: not that of an exported network"),
        ({"files": ["inference.json"]}, "missing or damaged"),
        ({"input": None}, "takes images as None; this program prepares them as"),
        ({"model": "lenet"}, "exported from lenet, not from palm"),
    ],
)
def test_wrong_metadata_are_refused(exported, about, message, tmp_path):
    shutil.copytree(exported("paddle"), tmp_path / "a")
    file = tmp_path / "a" / "about.json"
    before = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(about if isinstance(about, str) else json.dumps({**before, **about}), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load_model(tmp_path / "a", "palm")


@pytest.mark.skipif(not IS_PADDLE_2, reason="PaddlePaddle 3 runs the exports of 2, too")
def test_paddle_2_does_not_try_what_paddle_3_wrote(exported, tmp_path):
    shutil.copytree(exported("paddle"), tmp_path / "a")
    (tmp_path / "a" / PROGRAM).rename(tmp_path / "a" / "inference.json")
    with pytest.raises(InputError, match=r"inference\.json: of PaddlePaddle 3, which PaddlePaddle 2\.\S+ cannot run"):
        load_model(tmp_path / "a")


def strangers(operation, domain, shape, **metadata):
    """An ONNX model (bytes) of one operation on images of a shape, with these metadata."""
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    node = helper.make_node(operation, ["x"], ["y"], domain=domain)
    opsets = [helper.make_opsetid(name, 13) for name in {"", domain}]
    model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]), opset_imports=opsets, ir_version=7)
    helper.set_model_props(model, {name: json.dumps(value) for name, value in metadata.items()})
    return model.SerializeToString()


@needs_onnx
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: None, "no such file"),
        (lambda: b"garbage", "onnxruntime cannot run it"),
        (
            lambda: strangers("Relu", "", ["N", 3, 224, 224]),
            "does not state which images it takes; expected what",
        ),
        (lambda: strangers("Relu", "mine", ["N", 3, 224, 224], **ABOUT), "onnxruntime cannot run it .*mine"),
        (lambda: strangers("Relu", "", ["N", 3, 224, 224], **ABOUT), r"gives \(1, 3, 224, 224\) for 1 images"),
        (lambda: strangers("Relu", "", ["N", 1, 28, 28], **ABOUT), "cannot be run on photographs"),
        (lambda: strangers("Relu", "", ["N", 1, 28, 28], input={"size": 28}), "takes images as {'size': 28}; this"),
    ],
)
def test_other_onnx_files_are_refused(content, message, tmp_path, capfd):
    file = tmp_path / "theirs.onnx"
    if content():
        file.write_bytes(content())
    with pytest.raises(InputError, match=rf"theirs\.onnx: {message}"):
        load_model(file)
    assert capfd.readouterr().err == ""


@needs_onnx
def test_an_onnx_file_without_onnxruntime(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"onnxruntime is needed \(.*\): python -m pip install onnxruntime"):
        load_model(exported("onnx"))


# The README


@needs_onnx
def test_the_example_of_the_readme(weights, exported, small_demo, tmp_path):
    """It predicts as tools/predict.py does, without PaddlePaddle."""
    (example,) = (code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "onnxruntime" in code)
    (tmp_path / "output" / "alexnet").mkdir(parents=True)
    shutil.copy(exported("onnx"), tmp_path / "output" / "alexnet" / "best.onnx")
    photo = shutil.copy(small_demo / "PALM-Validation400" / "V0001.jpg", tmp_path / "photo.jpg")
    code = f"{example}\nimport sys; assert not {{'paddle', 'palm_cls'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    model, _ = load_model(weights)
    (expected,) = predict_images(model, [photo])
    probability, note = done.stdout.splitlines()
    assert float(probability.split()[-1]) == pytest.approx(expected.probability, abs=5e-5)
    assert note == f"{DISCLAIMER} {DEMO_WARNING}"
