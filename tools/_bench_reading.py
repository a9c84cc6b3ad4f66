"""Reading of images, a subject of tools/bench.py: jobs of tools/_bench_jobs.py."""

import os
import sys
from pathlib import Path
from time import perf_counter

BATCH = 10
EPOCHS = ("first epoch,", "second epoch,", "a later run,")


def lesson_samples(directory):
    """List [(path, label), ...] as the lesson does, but sorted, without the cache and labels.csv."""
    names = sorted(name for name in os.listdir(directory) if name[0] in "NP")
    return [(os.path.join(directory, name), int(name[0] == "P")) for name in names]


def delete_cache(directory):
    """Delete our cache of resized images."""
    for cache in Path(directory).glob(".palm_cls-*"):
        cache.unlink()


def lesson_reading(directory):
    """Measure an epoch; the checksum is computed in another one, because it takes time itself."""
    from _lesson_baseline import lesson_reader

    samples = lesson_samples(directory)
    figures = reading_figures(lesson_reader(samples), len(samples))
    sha256 = [epoch_sha256(lesson_reader(sorted(samples)))]
    return {f"{name} {unit}": figures[unit] for name in EPOCHS for unit in figures} | {"sha256": sha256}


def our_reading(directory):
    """Measure the first epoch, without a cache, and the second."""
    from palm_cls.data.loaders import data_loader

    delete_cache(directory)
    loader = data_loader(directory, BATCH, "train")
    figures = {name: reading_figures(loader, loader.num_samples) for name in EPOCHS[:2]}
    return {f"{name} {unit}": value for name in figures for unit, value in figures[name].items()}


def our_later_reading(directory):
    """Measure an epoch in a later process than that of `our_reading`, opening the cache included."""
    from palm_cls.data.loaders import data_loader

    num_samples = len(lesson_samples(directory))
    figures = reading_figures(lambda: data_loader(directory, BATCH, "train")(), num_samples)
    return {f"{EPOCHS[2]} {unit}": value for unit, value in figures.items()}


def our_bytes(directory):
    """Compute the checksums of the same epoch, first decoded, then from the cache."""
    from palm_cls.data.loaders import data_loader

    delete_cache(directory)
    return {"sha256": [epoch_sha256(data_loader(directory, BATCH, "train")) for _ in range(2)]}


def reading_figures(loader, num_samples):
    started = perf_counter()
    for _ in loader():
        pass
    return {"an image (ms)": 1000 * (perf_counter() - started) / num_samples, "peak memory (MB)": peak_memory()}


def epoch_sha256(loader):
    """Compute the checksum of all batches, in the order that seed 0 gives."""
    import hashlib
    import random

    random.seed(0)
    digest = hashlib.sha256()
    for batch in loader():
        for array in batch:
            digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def peak_memory():
    """Return the peak memory of this process in megabytes; None under Windows."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e6 / 1024)
