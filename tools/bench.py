"""Measure this project on this machine's CPU, against the lesson as it was written and against PyTorch.

python tools/bench.py [--only NAME ...] [--json FILE]

Both sides run in processes of their own, in turns: left, right, left, right. A ratio is left / right of one such pair;
the lesson is on the left, so that ours takes less if the ratio is above 1. The table shows the medians, and the lowest
and the highest ratio.
"""

import os
import sys
from dataclasses import dataclass
from typing import Callable, Optional

from _cli import Parser, path, positive_int, run

from palm_cls.core import environment
from palm_cls.core.console import log
from palm_cls.core.errors import InputError, RunError

NUM_PAIRS = 3
NUM_IMAGES = 400  # for training, and as many for validation, as in the lesson
NUM_PART = 100  # of them, for all rows but the whole lesson
CROWD = (8000, 400)  # numbers of images whose reading must take the same memory
PREDICT_BATCH = 32
PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "opencv-python", "opencv-python-headless", "numpy", "torch")
SETTINGS = ("OMP_", "MKL_", "KMP_", "OPENBLAS_", "FLAGS_")  # environment variables that set threads and kernels


@dataclass(frozen=True)
class Row:
    """A measurement of both sides.

    Attributes:
        title: What is measured.
        seconds: Approximate time of a pair on two cores.
        left: Jobs of the left side with their arguments, run one after the other.
        right: Those of the right side.
        sides: Names of the two sides.
        needs: Images to prepare: "photos", "crowd" or None.
        check: Function (left, right) of the results of a pair, which returns a line of text.
    """

    title: str
    seconds: int
    left: list
    right: list
    sides: tuple = ("lesson", "ours")
    needs: Optional[str] = None
    check: Optional[Callable] = None


def same_bytes(lesson, ours):
    same = {*lesson["sha256"], *ours["sha256"]} == {*lesson["sha256"]}
    return f"the batches are {'the same' if same else 'NOT the same'} to the byte, decoded and from the cache"


def logits_difference(lesson, ours):
    largest = max(abs(a - b) for a, b in zip(lesson["logits"], ours["logits"]))
    return f"the logits differ by at most {largest:.2g}; the largest is {max(map(abs, lesson['logits'])):.2g}"


def validation_results(lesson, ours):
    """Format accuracy and loss of both sides.

    Each side has random weights of its own: with few images their accuracy may differ while the loss agrees.
    """
    sides = {"lesson": lesson, "ours": ours}.items()
    return "; ".join(f"{side}: accuracy {result['accuracy']:.3f}, loss {result['loss']:.3f}" for side, result in sides)


def network_rows(name, step, later, waiting, predict, torch):
    """Make the five rows of a network.

    Args:
        name: "lenet" or "alexnet".
        step, later, waiting, predict, torch: Seconds that a pair of each row takes.
    """
    lesson, ours = f"lesson_training {name}", f"our_training {name}"
    on_images = f"{name}, training on {NUM_PART} full-size images, epochs 2+"
    evaluation = f"{name}, training after an evaluation of 100 images"
    prediction = f"{name}, predicting {PREDICT_BATCH} images at a time"
    jobs = [f"lesson_predicting {name} {PREDICT_BATCH}"], [f"our_predicting {name} {PREDICT_BATCH}"]
    return {
        f"{name}-step": Row(f"{name}, training", step, [lesson], [ours]),
        f"{name}-later": Row(evaluation, later, [f"lesson_training_later {name}"], [f"our_training_later {name}"]),
        f"{name}-waiting": Row(on_images, waiting, [f"{lesson} part"], [f"{ours} part"], needs="photos"),
        f"{name}-predict": Row(prediction, predict, *jobs, check=logits_difference),
        f"{name}-torch": Row(f"{name}, training", torch, [f"torch_training {name}"], [ours], ("torch", "ours")),
    }


ROWS = {
    "reader": Row(
        f"reading {NUM_PART} full-size images",
        10,
        ["lesson_reading part"],
        ["our_bytes part", "our_reading part", "our_later_reading part"],
        needs="photos",
        check=same_bytes,
    ),
    **network_rows("alexnet", step=30, later=60, waiting=50, predict=20, torch=25),
    **network_rows("lenet", step=13, later=30, waiting=18, predict=10, torch=12),
    "memory": Row(
        f"our reading of {CROWD[0]} small images, and of {CROWD[1]}",
        30,
        *[[f"our_reading crowd-{images}", f"our_later_reading crowd-{images}"] for images in CROWD],
        sides=[f"{images} images" for images in CROWD],
        needs="crowd",
    ),
    "startup": Row("start-up, and that of python -c pass", 3, ["our_starts"], ["bare_start"], ("ours", "bare Python")),
    "lesson": Row(
        "AlexNet, the whole lesson from images, nothing cached",
        700,
        ["lesson_whole"],
        ["our_whole"],
        needs="photos",
        check=validation_results,
    ),
}
LONG = ("memory", "lesson")  # one pair is enough, unless --repeat requests more


def parse_args():
    parser = Parser(description="Measure this project on this machine's CPU, against the lesson as it was written.")
    add = parser.add_argument
    add("--only", nargs="+", choices=ROWS, metavar="NAME", help=f"measure these rows only (of {', '.join(ROWS)})")
    add("--full", action="store_true", help=f"measure all rows; the last takes about {minutes(['lesson'])} min")
    pairs = f"pairs to measure (default: {NUM_PAIRS}; {', '.join(LONG)}: 1)"
    add("--repeat", type=positive_int, metavar="N", help=pairs)
    add("--data", type=path, metavar="DIR", help="data set with the images to read (default: drawn images)")
    images = "images of each split, for the row lesson (default: %(default)s)"
    add("--images", type=positive_int, default=NUM_IMAGES, metavar="N", help=images)
    add("--json", type=path, metavar="FILE", help="write all measurements")
    args = parser.parse_args()
    if args.only and args.full:
        parser.error("--only or --full, not both")
    chosen = args.only or [name for name in ROWS if args.full or name != "lesson"]
    args.only = [name for name in ROWS if name in chosen]
    return args


def num_pairs(name, repeat):
    return repeat or (1 if name in LONG else NUM_PAIRS)


def minutes(names, repeat=None):
    return 1 + sum(ROWS[name].seconds * num_pairs(name, repeat) for name in names) // 60


def main():
    args = parse_args()
    if args.json and not os.path.isdir(os.path.dirname(os.path.abspath(args.json))):
        raise InputError(f"{args.json}: there is no such directory to write it to")

    import tempfile

    report = {"machine": surroundings()}
    print(", ".join(f"{name} {value}" for part in report["machine"].values() for name, value in part.items()))
    log(f"This takes some {minutes(args.only, args.repeat)} min on two cores.")
    with tempfile.TemporaryDirectory(prefix="palm-bench-") as root:
        report["images"] = prepare(root, args)
        report["rows"] = {name: measure_row(root, name, args.repeat) for name in args.only}
    if args.json:
        from palm_cls.core.files import write_json

        write_json(report, args.json)
    return 1 if any("failed" in row for row in report["rows"].values()) else 0


def surroundings():
    """Return what the numbers depend on, three dictionaries."""
    import platform
    from importlib import metadata

    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "hardware": {
            "cpu": cpu_model() or platform.processor(),
            "cores": environment.available_cores(),
            "system": platform.platform(),
        },
        "versions": versions,
        "environment": {name: value for name, value in os.environ.items() if name.startswith(SETTINGS)},
    }


def cpu_model():
    try:
        with open("/proc/cpuinfo") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
    except OSError:
        return None


def prepare(root, args):
    """Make the images that the rows need; returns their description."""
    needs = {ROWS[name].needs for name in args.only}
    images = {}
    if "photos" in needs:
        log("images ...")
        data = os.path.abspath(args.data) if args.data else ""
        images = run_job(root, "prepare_photos", args.images, NUM_PART, data)
        print(f"images: {images['data']}, {images['bytes'] / 1000:.0f} kB on average")
    if "crowd" in needs:
        log("small images ...")
        run_job(root, "prepare_crowd", *CROWD)
    return images


def run_job(root, job, *arguments):
    """Run a job in a process of its own and return its result.

    Args:
        root: The directory to run in.
        job: Its name, see tools/_bench_jobs.py.
        arguments: Its arguments.

    Raises:
        InputError: The job refused its input.
        RunError: The job failed.
    """
    import json
    import subprocess

    program = os.path.join(os.path.dirname(os.path.realpath(__file__)), "_bench_jobs.py")
    done = subprocess.run(
        [sys.executable, program, job, *map(str, arguments)],
        cwd=root,
        env={name: value for name, value in os.environ.items() if name != "PALM_STOCK"},  # it turns our settings off
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
    )
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if done.returncode < 0:
        raise RunError(f"{job}: ended by signal {-done.returncode}; is there enough memory?")
    lines = done.stderr.strip().splitlines() or ["no reason given"]
    raise (InputError if done.returncode == 2 else RunError)(f"{job}: {lines[-1]}")


def measure_row(root, name, repeat):
    """Measure the pairs of a row, print its figures, and return its part of the report.

    After an error or Ctrl-C, the pairs that are complete are printed.
    """
    row, pairs, result = ROWS[name], [], {}
    try:
        for number in range(num_pairs(name, repeat)):
            log(f"{name}: pair {number + 1} of {num_pairs(name, repeat)} ...")
            pairs.append([run_jobs(root, jobs) for jobs in (row.left, row.right)])
    except (InputError, RunError) as error:
        absent = "No module named 'torch'" in str(error)
        result["left out" if absent else "failed"] = str(error)
        log(f"{name} is left out: there is no torch." if absent else f"bench.py: {name}: {error}")
    finally:  # after Ctrl-C, too
        if pairs:
            result.update(summary(row, pairs))
            print_row(result)
    return result


def run_jobs(root, jobs):
    results = {}
    for job in jobs:
        results.update(run_job(root, *job.split()))
    return results


def summary(row, pairs):
    """Return a row of the report: the figures, and the pairs they are computed from."""
    left, right = pairs[0]
    names = [name for name in {**left, **right} if name.endswith(")")]  # with a unit
    return {
        "title": row.title,
        "sides": row.sides,
        "figures": {name: figure(name, pairs) for name in names},
        "check": row.check(*pairs[-1]) if row.check else None,
        "pairs": [dict(zip(("left", "right"), pair)) for pair in pairs],
    }


def figure(name, pairs):
    left, right = ([median(result.get(name)) for result in side] for side in zip(*pairs))
    comparable = "(%)" not in name and all(left) and all(right)
    ratios = [a / b for a, b in zip(left, right)] if comparable else []
    return {"left": median(left), "right": median(right), "ratio": median(ratios), "ratios": ratios}


def median(value):
    """Return the median of a list, None if a value is missing; or a number itself."""
    import statistics

    if not isinstance(value, list):
        return value
    return statistics.median(value) if value and None not in value else None


def print_row(result):
    print(f"\n{result['title']:<60}{result['sides'][0]:>14}{result['sides'][1]:>14}    ratio")
    for name, numbers in result["figures"].items():
        sides = ["-" if numbers[side] is None else f"{numbers[side]:.4g}" for side in ("left", "right")]
        ratios = numbers["ratios"]
        spread = f"    {numbers['ratio']:.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""
        print(f"    {name:<56}{sides[0]:>14}{sides[1]:>14}{spread}")
    if result["check"]:
        print(f"    {result['check']}")


if __name__ == "__main__":
    run(main)
