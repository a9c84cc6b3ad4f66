"""Images for tools/bench.py: `prepare_photos` and `prepare_crowd`, jobs of tools/_bench_jobs.py."""

import os
from pathlib import Path

from palm_cls.core.errors import InputError

WIDTH, HEIGHT = 2124, 2056  # of most photographs of the lesson
NUM_DRAWN, NOISE, QUALITY = 24, 4, 95  # with this noise and quality, drawn JPEGs decode about as fast as photographs


def prepare_photos(num_images, num_part, data):
    """Fill part/, train/ and valid/ with images of a data set or with drawn ones.

    Args:
        num_images: Number of images in train/ and in valid/.
        num_part: Number of images in part/, the first of train/.
        data: Directory of the data set; "" for drawn images.

    Returns:
        A dict with "data", the numbers "train" and "valid", and "bytes", the mean size of a file.
    """
    if data:
        splits = shuffled_splits(data)
    else:
        drawn = draw_photos(Path("drawn"))
        splits = 2 * [[drawn[i % NUM_DRAWN] for i in range(int(num_images))]]
    train, valid = (samples[: int(num_images)] for samples in splits)
    link_all(train[: int(num_part)], Path("part"))
    link_all(train, Path("train"))
    names = link_all(valid, Path("valid"))
    rows = [f"{i},{name},{label},0,0\n" for i, (name, (_, label)) in enumerate(zip(names, valid), 1)]
    Path("valid/labels.csv").write_text("ID,imgName,Label,Fovea_X,Fovea_Y\n" + "".join(rows), encoding="utf-8")
    mean_bytes = sum(os.path.getsize(file) for file, _ in train) / len(train)
    return {"data": data or f"drawn, {WIDTH} x {HEIGHT}", "train": len(train), "valid": len(valid), "bytes": mean_bytes}


def shuffled_splits(data):
    """List [(path, label), ...] of the training and of the validation images."""
    import random

    from palm_cls.data.loader_factory import palm_loaders
    from palm_cls.data.palm import Dataset, find_dataset

    dataset = find_dataset(data)
    if not isinstance(dataset, Dataset):
        raise InputError(f"{data}: a folder for each class; the lesson's code reads the course's layouts only")
    splits = [loader.samples for loader in palm_loaders(dataset)]
    for samples in splits:  # sorted names begin with the healthy eyes, which have another size
        random.Random(0).shuffle(samples)
    return splits


def draw_photos(directory):
    """Draw eyes in 512 pixels, which is fast, and enlarge them; returns [(path, label), ...]."""
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
        return list(pool.map(draw, range(NUM_DRAWN)))


def prepare_crowd(*numbers):
    """Fill crowd-N/ with N small images for each number N."""
    import shutil

    from palm_cls.data.demo_set import write_demo_set

    if shutil.disk_usage(".").free < 3e9:
        raise InputError(f"{Path.cwd()}: less than 3 GB free, for the images of the row memory; set TMPDIR elsewhere")
    write_demo_set("demo", train=200, valid=1)
    drawn = [(file, int(file.name[0] == "P")) for file in sorted(Path("demo").glob("*Training*/*/*.jpg"))]
    for number in map(int, numbers):
        link_all([drawn[i % len(drawn)] for i in range(number)], Path(f"crowd-{number}"))
    return {"distinct": len(drawn)}


def link_all(samples, directory):
    """Link files in a new directory, under names that begin with the letter of their label.

    Args:
        samples: [(path, label), ...].
        directory: Path of the directory.

    Returns:
        The names.
    """
    import shutil

    directory.mkdir()
    names = [f"{'NP'[int(label)]}{i:05d}{Path(file).suffix.lower()}" for i, (file, label) in enumerate(samples)]
    for name, (file, _) in zip(names, samples):
        try:
            os.link(os.path.realpath(file), directory / name)
        except OSError:  # another disk, or one without links
            shutil.copyfile(file, directory / name)
    return names
