"""Jobs of tools/bench.py: what one process measures for one side, as a dict of figures.

python tools/_bench_jobs.py JOB ARGUMENT ...

A job runs in the temporary directory of the images. Its result is the last line on standard output, in JSON; an error
is the last line on standard error. Names of figures end in their unit; a figure is a number or a list of repetitions.
Jobs import what they need themselves, so that neither side runs with the other's settings.
"""

import sys
from pathlib import Path
from time import perf_counter

import _cli  # noqa: F401  so that palm_cls is found
from _bench_images import prepare_crowd, prepare_photos
from _bench_reading import (
    BATCH,
    delete_cache,
    lesson_reading,
    lesson_samples,
    our_bytes,
    our_later_reading,
    our_reading,
    peak_memory,
)

from palm_cls.core import environment
from palm_cls.core.errors import InputError, shorten

environment.restore()  # for the lesson's side; ours is configured again where it imports paddle

WARM_UP, STEPS = 3, 8  # training steps before and during the measurement
NUM_EVALUATED = 10  # batches; from so many images on, Paddle Inference evaluates them here
NUM_PREDICTIONS = 5  # batches
NUM_ROWS = 400  # of the .xlsx
NUM_LAUNCHES = 3
TOOLS = sorted(tool.stem for tool in Path(__file__).resolve().parent.glob("[!_]*.py"))


class TimedLoader:
    """A loader that measures how long the training loop waits for each batch and works on it."""

    def __init__(self, loader):
        self.loader = loader

    def __getattr__(self, name):
        return getattr(self.loader, name)

    def __call__(self):
        self.waits, self.steps = [], []
        requested = perf_counter()
        for batch in self.loader():
            received = perf_counter()
            self.waits.append(received - requested)
            yield batch
            requested = perf_counter()
            self.steps.append(requested - received)
        self.waits.append(perf_counter() - requested)
        self.peak = peak_memory()

    def figures(self):
        """Return the figures of the last epoch, without its first steps."""
        return {"a step (ms)": [1000 * seconds for seconds in self.steps[WARM_UP:]], "peak memory (MB)": self.peak}

    def share_of_waiting(self):
        return {"share of waiting for images (%)": 100 * sum(self.waits) / (sum(self.waits) + sum(self.steps))}


def batches_in_memory(num_batches=WARM_UP + STEPS):
    """Make a loader that repeats one batch."""
    batch = random_batch(BATCH)

    def loader():
        return iter([batch] * num_batches)

    loader.num_samples, loader.num_batches = num_batches * BATCH, num_batches
    return loader


def random_batch(num_samples):
    import numpy as np

    rng = np.random.default_rng(0)
    imgs = rng.uniform(-1, 1, (num_samples, 3, 224, 224)).astype("float32")
    return imgs, rng.integers(0, 2, (num_samples, 1)).astype("float32")


def lesson_training(name, directory=None):
    """Measure one epoch, from `directory` or from memory: the lesson decodes in every epoch."""
    from _lesson_baseline import lesson_reader, lesson_train

    loader = TimedLoader(lesson_reader(lesson_samples(directory)) if directory else batches_in_memory())
    lesson_train(lesson_model(name), loader, batches_in_memory(1), epochs=1)
    return {**loader.figures(), **(loader.share_of_waiting() if directory else {})}


def our_training(name, directory=None):
    """Measure the second epoch from `directory`, or the first from memory."""
    from palm_cls import data_loader, train

    loader = TimedLoader(data_loader(directory, BATCH, "train") if directory else batches_in_memory())
    train(our_model(name), loader, batches_in_memory(1), epochs=2 if directory else 1)
    return {**loader.figures(), **(loader.share_of_waiting() if directory else {})}


def lesson_training_later(name):
    """Measure the second epoch, after an evaluation."""
    from _lesson_baseline import lesson_train

    loader = TimedLoader(batches_in_memory())
    lesson_train(lesson_model(name), loader, batches_in_memory(NUM_EVALUATED), epochs=2)
    return loader.figures()


def our_training_later(name):
    """Measure the second epoch, after an evaluation."""
    from palm_cls import train

    loader = TimedLoader(batches_in_memory())
    train(our_model(name), loader, our_batches_in_memory(NUM_EVALUATED), epochs=2)
    return loader.figures()


def our_batches_in_memory(num_batches):
    """Make `batches_in_memory` a loader of known size: only for many images does Paddle Inference evaluate them."""
    from palm_cls.data.base_loader import CallableLoader

    return CallableLoader(batches_in_memory(num_batches), num_batches * BATCH, num_batches)


def torch_training(name):
    from _lesson_baseline import torch_network, torch_train

    loader = TimedLoader(batches_in_memory())
    torch_train(torch_network(name), loader)
    return loader.figures()


def lesson_model(name):
    """Make the network with Paddle's defaults, but on the CPU, as the others."""
    from _lesson_baseline import lesson_network

    import paddle

    paddle.set_device("cpu")
    return lesson_network(name)


def our_model(name):
    from palm_cls import build_model, choose_device

    choose_device("cpu")
    return build_model(name)


def lesson_predicting(name, num_samples):
    model = with_fixed_weights(lesson_model(name))
    import paddle

    def predict(imgs):
        with paddle.no_grad():
            return model(paddle.to_tensor(imgs)).numpy()

    return prediction_figures(predict, int(num_samples))


def our_predicting(name, num_samples):
    """Predict as in a large validation: the network is converted at the first batch."""
    from palm_cls.eval.engine import predictor

    with predictor(with_fixed_weights(our_model(name)), num_samples=1000) as predict:
        return prediction_figures(predict, int(num_samples))


def with_fixed_weights(model):
    """Put the network in evaluation mode, with weights that are the same on both sides."""
    import numpy as np

    rng = np.random.default_rng(0)
    for parameter in model.parameters():
        fan_in = np.prod(parameter.shape[1:]) if len(parameter.shape) == 4 else parameter.shape[0]
        weights = rng.standard_normal(parameter.shape, np.float32)
        parameter.set_value(weights * np.float32((2 / fan_in) ** 0.5))
    model.eval()
    return model


def prediction_figures(predict, num_samples):
    imgs, _ = random_batch(num_samples)
    milliseconds = []
    for _ in range(1 + NUM_PREDICTIONS):
        started = perf_counter()
        logits = predict(imgs)
        milliseconds.append(1000 * (perf_counter() - started))
    first, *others = milliseconds
    return {"a batch (ms)": others, "the first, ours with conversion (ms)": first, "logits": logits.flatten().tolist()}


def lesson_whole():
    """Measure the time from the images to AlexNet after five epochs, its last validation included."""
    started = perf_counter()
    from _lesson_baseline import lesson_reader, lesson_train

    train_loader = lesson_reader(lesson_samples("train"), BATCH, "train")
    valid_loader = lesson_reader(lesson_samples("valid"), BATCH, "valid")
    accuracy, loss = lesson_train(lesson_model("alexnet"), train_loader, valid_loader)
    return {"all of it (s)": perf_counter() - started, "accuracy": accuracy, "loss": loss}


def our_whole():
    """Measure the same as `lesson_whole`."""
    delete_cache("train")
    delete_cache("valid")
    started = perf_counter()
    from palm_cls import data_loader, train, valid_data_loader

    train_loader = data_loader("train", BATCH, "train")
    valid_loader = valid_data_loader("valid", "valid/labels.csv", BATCH)
    last = train(our_model("alexnet"), train_loader, valid_loader)[-1]
    return {"all of it (s)": perf_counter() - started, "accuracy": last["valid_accuracy"], "loss": last["valid_loss"]}


STARTS = {
    **{f"{tool}.py --help (ms)": (f"{tool}.py", "--help") for tool in TOOLS},
    f"xlsx2csv.py, {NUM_ROWS} rows (ms)": ("xlsx2csv.py", "table.xlsx", "table.csv"),
}


def bare_start():
    return dict.fromkeys(STARTS, launch_times("-c", "pass"))


def our_starts():
    import openpyxl

    book = openpyxl.Workbook()
    book.active.append(["ID", "imgName", "Label", "Fovea_X", "Fovea_Y"])
    for i in range(NUM_ROWS):
        book.active.append([i + 1, f"V{i + 1:04d}.jpg", i % 2, 1000.5, 900.25])
    book.save("table.xlsx")
    here = Path(__file__).resolve().parent
    return {name: launch_times(here / tool, *arguments) for name, (tool, *arguments) in STARTS.items()}


def launch_times(*arguments):
    import subprocess

    milliseconds = []
    for _ in range(NUM_LAUNCHES):
        started = perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        milliseconds.append(1000 * (perf_counter() - started))
    return milliseconds


JOBS = {
    job.__name__: job
    for job in (
        prepare_photos,
        prepare_crowd,
        lesson_reading,
        our_reading,
        our_later_reading,
        our_bytes,
        lesson_training,
        our_training,
        lesson_training_later,
        our_training_later,
        torch_training,
        lesson_predicting,
        our_predicting,
        lesson_whole,
        our_whole,
        bare_start,
        our_starts,
    )
}


def main():
    import json

    try:
        print("\n" + json.dumps(JOBS[sys.argv[1]](*sys.argv[2:])))
        return 0
    except InputError as error:
        message, status = error, 2
    except Exception as error:  # of any type: the parent process has only this line
        message, status = f"{type(error).__name__}: {error}", 1
    print("\n" + shorten(str(message).strip()), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
