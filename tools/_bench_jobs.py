"""The jobs of tools/bench.py: what one process does for one side, and the numbers that it returns by name.

python tools/_bench_jobs.py JOB ARGUMENT ...

It runs in the temporary directory of the images, and prints its answer as the last line, in JSON; or else an error as
the last line of standard error. Names of figures end in their unit; a figure is a number or a list of singles. What
palm_cls and the lesson's side need is imported in the jobs, so that neither side has the other's settings.
"""

import os
import sys
from pathlib import Path
from time import perf_counter

import _cli  # noqa: F401  so that palm_cls is found

from palm_cls.core import environment
from palm_cls.core.errors import InputError, excerpt

environment.restore()  # for the lesson's side; ours has it settled again where it imports paddle

WIDTH, HEIGHT = 2124, 2056  # of most photographs of the lesson
DRAWN, NOISE, QUALITY = 24, 4, 95  # pictures; with this noise, and as such a JPEG, they decode about as photographs do
BATCH = 10
WARM_UP, STEPS = 3, 8  # training steps before and while measuring
EVALUATED = 10  # batches, of so many images that Paddle Inference evaluates them here
PREDICTIONS = 5  # batches
TABLE = 400  # rows of the .xlsx
LAUNCHES = 3
EPOCHS = ("first epoch,", "second epoch,", "a later run,")
TOOLS = sorted(tool.stem for tool in Path(__file__).resolve().parent.glob("[!_]*.py"))


def prepare_photos(images, part, data):
    """Fill part/, train/ and valid/ with images of the data set in `data`, or, if that is "", with drawn ones."""
    import random

    if data:
        from palm_cls.data.loader_factory import palm_loaders
        from palm_cls.data.palm import find_dataset

        splits = [reader.samples for reader in palm_loaders(find_dataset(data))]
        for samples in splits:  # sorted names begin with the healthy eyes, which have another size
            random.Random(0).shuffle(samples)
    else:
        drawn = draw_photos(Path("drawn"))
        splits = 2 * [[drawn[i % DRAWN] for i in range(int(images))]]
    train, valid = (samples[: int(images)] for samples in splits)
    link_all(train[: int(part)], Path("part"))
    link_all(train, Path("train"))
    names = link_all(valid, Path("valid"))
    rows = [f"{i},{name},{label},0,0\n" for i, (name, (_, label)) in enumerate(zip(names, valid), 1)]
    Path("valid/labels.csv").write_text("ID,imgName,Label,Fovea_X,Fovea_Y\n" + "".join(rows), encoding="utf-8")
    mean_bytes = sum(os.path.getsize(file) for file, _ in train) / len(train)
    return {"data": data or f"drawn, {WIDTH} x {HEIGHT}", "train": len(train), "valid": len(valid), "bytes": mean_bytes}


def draw_photos(directory):
    """Draw eyes in 512 pixels, which is quick, and enlarge them; returns [(path, label), ...]."""
    from concurrent.futures import ThreadPoolExecutor

    import cv2
    import numpy as np

    from palm_cls.data.synthetic import draw_fundus

    def draw(i):
        rng = np.random.default_rng(i)
        img = cv2.resize(draw_fundus("NP"[i % 2], rng)[0], (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        img = np.clip(img + NOISE * rng.standard_normal(img.shape, np.float32), 0, 255).astype("uint8")
        file = directory / f"{i}.jpg"
        file.write_bytes(cv2.imencode(".jpg", img, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())
        return file, i % 2

    directory.mkdir()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(draw, range(DRAWN)))


def prepare_crowd(*numbers):
    """Fill crowd-N/ with N small images: what is measured on them is what grows with their number."""
    import shutil

    from palm_cls.data.synthetic import write_demo_set

    if shutil.disk_usage(".").free < 3e9:
        raise InputError(f"{Path.cwd()}: less than 3 GB free, for the images of the row memory; set TMPDIR elsewhere")
    write_demo_set("demo", train=200, valid=1)
    drawn = [(file, int(file.name[0] == "P")) for file in sorted(Path("demo").glob("*Training*/*/*.jpg"))]
    for images in map(int, numbers):
        link_all([drawn[i % len(drawn)] for i in range(images)], Path(f"crowd-{images}"))
    return {"distinct": len(drawn)}


def link_all(samples, directory):
    """Give the files of [(path, label), ...] names in `directory` that tell the label; returns the names."""
    import shutil

    directory.mkdir()
    names = [f"{'NP'[int(label)]}{i:05d}{Path(file).suffix.lower()}" for i, (file, label) in enumerate(samples)]
    for name, (file, _) in zip(names, samples):
        try:
            os.link(os.path.realpath(file), directory / name)
        except OSError:  # on another disk, or one without links
            shutil.copyfile(file, directory / name)
    return names


def lesson_samples(directory):
    """[(path, label), ...] as the lesson lists them, but sorted, and passing over the cache and labels.csv."""
    names = sorted(name for name in os.listdir(directory) if name[0] in "NP")
    return [(os.path.join(directory, name), int(name[0] == "P")) for name in names]


def forget(directory):
    """Remove our cache of decoded images."""
    for cache in Path(directory).glob(".palm_cls-*"):
        cache.unlink()


def lesson_reading(directory):
    """Milliseconds an image; the bytes of an epoch are summed up apart, for that takes time itself."""
    from _lesson_way import lesson_reader

    samples = lesson_samples(directory)
    numbers = reading_figures(lesson_reader(samples), len(samples))
    sha256 = [sha256_of_epoch(lesson_reader(sorted(samples)))]
    return {f"{name} {unit}": numbers[unit] for name in EPOCHS for unit in numbers} | {"sha256": sha256}


def our_reading(directory):
    """The first epoch, nothing cached, and the second."""
    from palm_cls.data.loaders import data_loader

    forget(directory)
    reader = data_loader(directory, BATCH, "train")
    numbers = {name: reading_figures(reader, reader.num_samples) for name in EPOCHS[:2]}
    return {f"{name} {unit}": value for name in numbers for unit, value in numbers[name].items()}


def our_later_reading(directory):
    """After `our_reading`, in another process."""
    from palm_cls.data.loaders import data_loader

    images = len(lesson_samples(directory))
    numbers = reading_figures(lambda: data_loader(directory, BATCH, "train")(), images)  # with opening the cache
    return {f"{EPOCHS[2]} {unit}": value for unit, value in numbers.items()}


def our_bytes(directory):
    """The sums of the same epoch, first decoded, then from the cache."""
    from palm_cls.data.loaders import data_loader

    forget(directory)
    return {"sha256": [sha256_of_epoch(data_loader(directory, BATCH, "train")) for _ in range(2)]}


def reading_figures(reader, images):
    started = perf_counter()
    for _ in reader():
        pass
    return {"an image (ms)": 1000 * (perf_counter() - started) / images, "peak memory (MB)": peak_memory()}


def sha256_of_epoch(reader):
    """Of all its batches, in the order that seed 0 gives."""
    import hashlib
    import random

    random.seed(0)
    digest = hashlib.sha256()
    for batch in reader():
        for array in batch:
            digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def peak_memory():
    """Megabytes that this process had at most so far; None where the system (Windows) does not tell."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e6 / 1024)


class Timed:
    """A reader that notes how long it lets wait for each batch, and how long the loop then works on it."""

    def __init__(self, reader):
        self.reader = reader

    def __getattr__(self, name):  # all else is the reader's
        return getattr(self.reader, name)

    def __call__(self):
        self.waits, self.steps = [], []
        asked = perf_counter()
        for batch in self.reader():
            got = perf_counter()
            self.waits.append(got - asked)
            yield batch
            asked = perf_counter()
            self.steps.append(asked - got)
        self.waits.append(perf_counter() - asked)
        self.peak = peak_memory()

    def figures(self):
        """Of the last epoch; singles without the first steps."""
        return {"a step (ms)": [1000 * seconds for seconds in self.steps[WARM_UP:]], "peak memory (MB)": self.peak}

    def share_of_waiting(self):
        return {"share of waiting for images (%)": 100 * sum(self.waits) / (sum(self.waits) + sum(self.steps))}


def batches_in_memory(number=WARM_UP + STEPS):
    """A loader of them."""
    from palm_cls.data.base_loader import CallableLoader

    batch = some_batch(BATCH)
    return CallableLoader(lambda: [batch] * number, number * BATCH, number)


def some_batch(images):
    import numpy as np

    rng = np.random.default_rng(0)
    imgs = rng.uniform(-1, 1, (images, 3, 224, 224)).astype("float32")
    return imgs, rng.integers(0, 2, (images, 1)).astype("float32")


def lesson_training(name, directory=None):
    """One epoch, from `directory` or from memory: the lesson decodes in all of them."""
    from _lesson_way import lesson_reader, lesson_train

    reader = Timed(lesson_reader(lesson_samples(directory)) if directory else batches_in_memory())
    lesson_train(lesson_model(name), reader, batches_in_memory(1), epochs=1)
    return {**reader.figures(), **(reader.share_of_waiting() if directory else {})}


def our_training(name, directory=None):
    """Two epochs, the answer is the second's; or one from memory."""
    from palm_cls import data_loader, train

    reader = Timed(data_loader(directory, BATCH, "train") if directory else batches_in_memory())
    train(our_model(name), reader, batches_in_memory(1), epochs=2 if directory else 1)
    return {**reader.figures(), **(reader.share_of_waiting() if directory else {})}


def lesson_training_later(name):
    """The second epoch, after an evaluation."""
    from _lesson_way import lesson_train

    reader = Timed(batches_in_memory())
    lesson_train(lesson_model(name), reader, batches_in_memory(EVALUATED), epochs=2)
    return reader.figures()


def our_training_later(name):
    from palm_cls import train

    reader = Timed(batches_in_memory())
    train(our_model(name), reader, batches_in_memory(EVALUATED), epochs=2)
    return reader.figures()


def torch_training(name):
    from _lesson_way import torch_network, torch_train

    reader = Timed(batches_in_memory())
    torch_train(torch_network(name), reader)
    return reader.figures()


def lesson_model(name):
    """Paddle as it comes, but on the CPU, as the others."""
    from _lesson_way import lesson_network

    import paddle

    paddle.set_device("cpu")
    return lesson_network(name)


def our_model(name):
    from palm_cls import build_model, choose_device

    choose_device("cpu")
    return build_model(name)


def lesson_predicting(name, images):
    model = with_fixed_weights(lesson_model(name))
    import paddle

    def predict(imgs):
        with paddle.no_grad():
            return model(paddle.to_tensor(imgs)).numpy()

    return predictions(predict, int(images))


def our_predicting(name, images):
    """As for a validation of many images: the network is converted at the first batch."""
    from palm_cls.eval.engine import logits_function

    with logits_function(with_fixed_weights(our_model(name)), images=1000) as predict:
        return predictions(predict, int(images))


def with_fixed_weights(model):
    """The network in evaluation mode, with weights that are the same on both sides."""
    import numpy as np

    rng = np.random.default_rng(0)
    for parameter in model.parameters():
        fan_in = np.prod(parameter.shape[1:]) if len(parameter.shape) == 4 else parameter.shape[0]
        weights = rng.standard_normal(parameter.shape, np.float32)
        parameter.set_value(weights * np.float32((2 / fan_in) ** 0.5))
    model.eval()
    return model


def predictions(predict, images):
    imgs, _ = some_batch(images)
    milliseconds = []
    for _ in range(1 + PREDICTIONS):
        started = perf_counter()
        logits = predict(imgs)
        milliseconds.append(1000 * (perf_counter() - started))
    first, *others = milliseconds
    return {"a batch (ms)": others, "the first, ours with conversion (ms)": first, "logits": logits.flatten().tolist()}


def lesson_whole():
    """From the images to AlexNet after five epochs, its last validation included."""
    started = perf_counter()
    from _lesson_way import lesson_reader, lesson_train

    train_loader = lesson_reader(lesson_samples("train"), BATCH, "train")
    valid_loader = lesson_reader(lesson_samples("valid"), BATCH, "valid")
    accuracy, loss = lesson_train(lesson_model("alexnet"), train_loader, valid_loader)
    return {"all of it (s)": perf_counter() - started, "accuracy": accuracy, "loss": loss}


def our_whole():
    forget("train")
    forget("valid")
    started = perf_counter()
    from palm_cls import data_loader, train, valid_data_loader

    train_loader = data_loader("train", BATCH, "train")
    valid_loader = valid_data_loader("valid", "valid/labels.csv", BATCH)
    last = train(our_model("alexnet"), train_loader, valid_loader)[-1]
    return {"all of it (s)": perf_counter() - started, "accuracy": last["valid_accuracy"], "loss": last["valid_loss"]}


STARTS = {
    **{f"{tool}.py --help (ms)": (f"{tool}.py", "--help") for tool in TOOLS},
    f"xlsx2csv.py, {TABLE} rows (ms)": ("xlsx2csv.py", "table.xlsx", "table.csv"),
}


def bare_start():
    return dict.fromkeys(STARTS, milliseconds_of_launches("-c", "pass"))


def our_starts():
    import openpyxl

    book = openpyxl.Workbook()
    book.active.append(["ID", "imgName", "Label", "Fovea_X", "Fovea_Y"])
    for i in range(TABLE):
        book.active.append([i + 1, f"V{i + 1:04d}.jpg", i % 2, 1000.5, 900.25])
    book.save("table.xlsx")
    here = Path(__file__).resolve().parent
    return {name: milliseconds_of_launches(here / tool, *arguments) for name, (tool, *arguments) in STARTS.items()}


def milliseconds_of_launches(*arguments):
    import subprocess

    milliseconds = []
    for _ in range(LAUNCHES):
        started = perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        milliseconds.append(1000 * (perf_counter() - started))
    return milliseconds


def main():
    import json

    try:
        print("\n" + json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
    except InputError as error:
        return _tell(error, 2)
    except Exception as error:  # of whatever kind: who started this process has only this line
        return _tell(f"{type(error).__name__}: {error}", 1)
    return 0


def _tell(error, status):
    print("\n" + excerpt(str(error).strip()), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
