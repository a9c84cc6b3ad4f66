"""tools/bench.py: what it compares is the same on both sides, and its figures are those of its singles. No times."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys

import numpy as np
import pytest
from helpers import PROJECT

from palm_cls import build_model, data_loader, train, valid_data_loader
from palm_cls.eval.engine import MIN_IMAGES, predict

TRAIN_IMAGES = "PALM-Training400/PALM-Training400"


@pytest.fixture
def baseline(monkeypatch):
    monkeypatch.syspath_prepend(PROJECT / "tools")
    import _lesson_baseline

    return _lesson_baseline


@pytest.fixture
def images(monkeypatch):
    monkeypatch.syspath_prepend(PROJECT / "tools")
    import _bench_images

    return _bench_images


@pytest.fixture
def jobs(monkeypatch):
    monkeypatch.syspath_prepend(PROJECT / "tools")
    import _bench_jobs

    return _bench_jobs


def give_weights(model, weights):
    for parameter, value in zip(model.parameters(), weights):
        parameter.set_value(value)


def batches_of(number, images=2):
    rng = np.random.default_rng(0)
    shape = (images, 3, 224, 224)
    return [(rng.uniform(-1, 1, shape).astype("float32"), np.float32([[0], [1]])) for _ in range(number)]


@pytest.mark.parametrize(
    ("row", "pairs", "known"),
    [
        pytest.param("startup", 1, "train.py --help (ms)", marks=pytest.mark.slow),
        pytest.param("reader", 2, "first epoch, an image (ms)", marks=pytest.mark.slow),
    ],
)
def test_figures_are_computed_from_the_singles(tool, small_demo, tmp_path, row, pairs, known):
    file = tmp_path / "report.json"
    done = tool("bench", "--only", row, "--repeat", pairs, "--data", small_demo, "--json", file)
    assert done.returncode == 0, done.stderr
    report = json.loads(file.read_text(encoding="utf-8"))
    assert {"cpu", "cores"} <= set(report["machine"]["hardware"])
    assert report["machine"]["versions"]["numpy"] == np.__version__
    row = report["rows"][row]
    assert len(row["pairs"]) == pairs
    assert known in row["figures"]
    for name, figure in row["figures"].items():
        left, right = ([float(np.median(pair[side][name])) for pair in row["pairs"]] for side in ("left", "right"))
        assert min(left + right) > 0
        assert figure["left"] == statistics.median(left)
        assert figure["right"] == statistics.median(right)
        assert figure["ratios"] == [a / b for a, b in zip(left, right)]
        assert figure["ratio"] == statistics.median(figure["ratios"])
        (line,) = [line for line in done.stdout.splitlines() if line.strip().startswith(name)]
        assert f"{figure['left']:.4g}" in line
        assert f"{figure['ratio']:.2f} ({min(figure['ratios']):.2f} to {max(figure['ratios']):.2f})" in line


def test_both_readers_give_the_same_bytes(jobs, images, small_demo, tmp_path, monkeypatch):
    shutil.copytree(small_demo / TRAIN_IMAGES, tmp_path / "part")
    monkeypatch.chdir(tmp_path)
    images.link_all(jobs.lesson_samples("part"), tmp_path / "linked")
    lesson, ours = jobs.lesson_reading("linked"), jobs.our_bytes("linked")
    assert ours["sha256"] == 2 * lesson["sha256"]
    images.link_all(jobs.lesson_samples("part")[1:], tmp_path / "fewer")
    assert jobs.our_bytes("fewer")["sha256"][0] not in lesson["sha256"]


def test_the_prepared_validation_images_keep_their_labels(jobs, small_demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = jobs.prepare_photos("8", "5", str(small_demo))
    assert (images["train"], images["valid"], len(jobs.lesson_samples("part"))) == (8, 8, 5)
    reader = valid_data_loader("valid", "valid/labels.csv")
    assert [(str(path), label) for path, label in reader.samples] == sorted(jobs.lesson_samples("valid"), key=number)
    assert data_loader("train").num_samples == len(jobs.lesson_samples("train")) == 8


def number(sample):
    return sample[0][-9:]


@pytest.mark.parametrize("name", ["lenet", pytest.param("alexnet", marks=pytest.mark.slow)])
def test_the_networks_are_ours(baseline, name):
    ours = build_model(name)
    ours.eval()
    ((imgs, _),) = batches_of(1)
    expected = predict(ours, imgs)
    weights = [parameter.numpy() for parameter in ours.parameters()]
    stock = baseline.lesson_network(name)
    stock.eval()
    give_weights(stock, weights)
    np.testing.assert_allclose(predict(stock, imgs), expected, rtol=1e-4, atol=1e-5)

    torch = pytest.importorskip("torch")
    model = baseline.torch_network(name)
    model.eval()
    after_dropout = [index + 1 for index, layer in enumerate(model) if isinstance(layer, torch.nn.Dropout)]
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), weights):
            parameter.copy_(torch.from_numpy(value.T if value.ndim == 2 else value))
        for index in after_dropout:  # its dropout does not halve
            model[index].weight /= 2
        logits = model(torch.from_numpy(imgs)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_loop_is_ours(baseline, capsys):
    ours, lesson = build_model("lenet"), baseline.lesson_network("lenet")
    give_weights(lesson, [parameter.numpy() for parameter in ours.parameters()])
    batches = batches_of(2)
    history = train(ours, lambda: iter(batches), lambda: iter(batches), epochs=1)
    accuracy, loss = baseline.lesson_train(lesson, lambda: iter(batches), lambda: iter(batches), epochs=1)
    assert accuracy == history[-1]["valid_accuracy"]
    assert loss == pytest.approx(history[-1]["valid_loss"], abs=1e-5)
    for one, other in zip(ours.parameters(), lesson.parameters()):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-6)
    printed = capsys.readouterr().out.split("start training ... ")[1:]
    assert [text.count("[validation] accuracy/loss: ") for text in printed] == [1, 1]


def test_the_loop_in_torch_trains(baseline):
    torch = pytest.importorskip("torch")
    model = baseline.torch_network("lenet")
    before = [parameter.detach().clone() for parameter in model.parameters()]
    baseline.torch_train(model, lambda: iter(batches_of(1)))
    assert all(not torch.equal(one, other) for one, other in zip(before, model.parameters()))


def test_the_share_of_waiting(jobs, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(jobs, "perf_counter", lambda: clock[0])

    def reader():
        for _ in range(6):
            clock[0] += 3
            yield "batch"

    timed = jobs.TimedLoader(reader)
    for epoch in range(2):  # the answer is that of the last one
        for _ in timed():
            clock[0] += 1 + 8 * epoch
    assert timed.share_of_waiting() == {"share of waiting for images (%)": 25}
    assert timed.figures()["a step (ms)"] == [9000] * (6 - jobs.WARM_UP)


def test_the_evaluation_before_the_later_steps_is_large_enough_for_the_engine(jobs):
    assert jobs.our_batches_in_memory(jobs.NUM_EVALUATED).num_samples == MIN_IMAGES


def test_checks_state_what_differs(monkeypatch):
    monkeypatch.syspath_prepend(PROJECT / "tools")
    import bench

    assert "NOT the same" in bench.same_bytes({"sha256": ["a"]}, {"sha256": ["a", "b"]})
    assert "are the same" in bench.same_bytes({"sha256": ["a"]}, {"sha256": ["a", "a"]})
    message = bench.logits_difference({"logits": [1.0, -4.0]}, {"logits": [1.5, -4.0]})
    assert message == "the logits differ by at most 0.5; the largest is 4"


@pytest.fixture
def damaged(small_demo, tmp_path):
    root = tmp_path / "damaged"
    shutil.copytree(small_demo, root)
    next((root / TRAIN_IMAGES).glob("P*.jpg")).write_bytes(b"\xff\xd8 no image")
    return root


def test_a_child_that_fails_is_explained_in_a_line(tool, damaged, tmp_path):
    (tmp_path / "temporary").mkdir()
    file = tmp_path / "report.json"
    options = ["--only", "reader", "--repeat", 1, "--data", damaged, "--json", file]
    done = tool("bench", *options, TMPDIR=str(tmp_path / "temporary"))
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("bench.py: ")]
    assert line.startswith("bench.py: reader: lesson_reading: error: ")
    assert "Traceback" not in done.stderr
    assert json.loads(file.read_text(encoding="utf-8"))["rows"]["reader"]["failed"] in line
    assert not list((tmp_path / "temporary").iterdir())


def test_wrong_use(tool, tmp_path):
    for options, message in (
        (["--only", "speed"], "invalid choice: 'speed'"),
        (["--only", "reader", "--full"], "not both"),
        (["--only", "startup", "--json", tmp_path / "no" / "file"], "no such directory"),
        (["--only", "reader", "--data", tmp_path / "nothing"], "no such directory"),
    ):
        done = tool("bench", *options)
        assert (done.returncode, done.stderr.count("Traceback")) == (2, 0)
        assert message in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT")
def test_ctrl_c_prints_what_was_measured_and_leaves_nothing(small_demo, tmp_path):
    options = [
        "--only",
        "reader",
        "--repeat",
        "100",
        "--data",
        str(small_demo),
        "--json",
        str(tmp_path / "report.json"),
    ]
    with subprocess.Popen(
        [sys.executable, PROJECT / "tools" / "bench.py", *options],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        for line in process.stderr:
            if "pair 2 of 100" in line:
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines() == ["bench.py: interrupted"]
    assert "the batches are the same to the byte" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_paddle_keeps_its_defaults_on_the_lessons_side():
    """What is set for ours (threads, among others) must not reach the lesson's side."""
    program = (
        "import os, sys; import _bench_jobs as jobs; jobs.lesson_model('lenet'); print(os.environ['OMP_NUM_THREADS']); "
        "print(sorted(name for name in sys.modules if name.startswith('palm_cls')))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PROJECT / "tools",
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    *_, threads, modules = done.stdout.splitlines()
    assert threads == "1"
    light = ["", ".core", ".core.console", ".core.environment", ".core.errors"]
    assert modules == str([f"palm_cls{name}" for name in light])
