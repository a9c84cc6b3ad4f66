"""Several runs of one recipe that differ in their seed only, in one directory.

    seeds.json    the seeds, and what all the runs are begun with; written before the first
    seed-0        the run with seed 0, as `palm_cls.checkpoints.run_dir` describes it
    seed-1        ...

A directory that was left in the middle has all of this in seeds.json, so that the missing runs can be made up for.
"""

import gc
from collections import namedtuple
from pathlib import Path

from palm_cls.checkpoints import run_dir
from palm_cls.checkpoints.pretrained import load_pretrained
from palm_cls.checkpoints.run_files import SEEDS, read_seeds, read_settings, seed_directory, write_json
from palm_cls.checkpoints.weights import load
from palm_cls.core import environment
from palm_cls.core.device import choose_device
from palm_cls.core.errors import InputError
from palm_cls.data.loader_factory import make_loaders
from palm_cls.recipes import CHANGEABLE, build_model, find_recipe
from palm_cls.training import experiment
from palm_cls.training.experiment import BEFORE, absolute, fixed_of, refuse_changes, resume_recipe, train_recipe
from palm_cls.training.visualdl import scalars_wanted

# What a directory goes on with as it began; another learning rate would hold for some seeds and not for others.
FIXED = ("name", "learning_rate", *(key for key in experiment.FIXED if key != "seed"))
TAKEN = (*FIXED, "data", "epochs", "save_every")

# output: Path of the directory; histories: {seed: what `train` returns}; recipe: the Recipe; dataset: the Dataset or
# Digits
TrainedSeeds = namedtuple("TrainedSeeds", ("output", "histories", "recipe", "dataset"))


def train_seeds(
    name,
    seeds,
    data=None,
    train_csv=None,
    skip_bad=False,
    weights=None,
    pretrained=False,
    device=None,
    output=None,
    save_every=None,
    cache=True,
    download=False,
    report=True,
    visualdl=None,
    **changes,
):
    """Train the recipe `name` once with each of the `seeds` (int), one after another, and return a TrainedSeeds.

    output: directory of the runs, default output/`name`; what was run there before is moved aside. The rest is as
    `train_recipe` takes it, and each run has the numbers that `train_recipe` gives with its seed. Raises InputError for
    what is missing, before anything is moved or written.
    """
    _require_one_process()
    output = Path(output or Path("output", name))
    recipe = find_recipe(name, **changes)
    _check_seeds(seeds)
    visualdl = scalars_wanted(visualdl)
    choose_device(device)
    # Told of the images as each run will tell, and therefore once.
    *_, dataset = make_loaders(recipe, absolute(data), train_csv, skip_bad, cache, download)
    _check_weights(weights, pretrained, name, output)
    content = {
        "seeds": list(seeds),
        "name": name,
        "data": absolute(dataset.root),
        "train_csv": absolute(train_csv),
        "skip_bad": skip_bad,
        "weights": absolute(weights),
        "pretrained": pretrained,
        "save_every": save_every,
        **{key: getattr(recipe, key) for key in CHANGEABLE},
    }
    with run_dir.start_seeds(output, content):
        passing = {"device": device, "cache": cache, "download": download, "report": report, "visualdl": visualdl}
        return _train_missing(output, content, passing)


def _require_one_process():
    if environment.processes() > 1:
        raise InputError("--seeds is for one process; several train with one --seed")


def _check_seeds(seeds):
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds {list(seeds)}: expected one or more, each once")


def _check_weights(weights, pretrained, name, output):
    """Raise InputError where the runs could not start from these weights."""
    if pretrained:
        load_pretrained(build_model(name), name)
    if weights is None:
        return
    if Path(absolute(weights)).is_relative_to(absolute(output)):
        raise InputError(f"{weights}: would be moved aside with {output}, and missing then; give another --output")
    load(weights, build_model(name))


def resume_seeds(output, seeds=None, device=None, cache=True, download=False, report=True, visualdl=None, **changes):
    """Finish the runs in a directory of `train_seeds` and make those that are missing; returns a TrainedSeeds.

    seeds: those that were given, and more; `changes` may be epochs (more of them, for every seed), data (the same
    images in another place) and save_every. visualdl: write scalars, too; None: where one of the runs did. Raises
    InputError, naming it, for a change of anything else.
    """
    _require_one_process()
    content = {**BEFORE, **read_seeds(output)}
    if not {"seeds", *TAKEN} <= set(content):
        raise InputError(f"{output}: no runs with several seeds there to resume (no {SEEDS} of them in it)")
    seeds = content["seeds"] if seeds is None else list(seeds)
    _check_seeds(seeds)
    if missing := [seed for seed in content["seeds"] if seed not in seeds]:
        raise InputError(
            f"{output}: begun with seed {missing[0]}, too; --seeds can only add to those it was begun with"
        )
    if "seed" in changes:
        raise InputError(f"{output}: runs with several seeds, not with seed {changes['seed']}; leave --seed out")
    if unknown := set(changes) - set(TAKEN):
        raise TypeError(f"resume_seeds() takes no {', '.join(sorted(unknown))}")
    refuse_changes(output, content, changes, fixed_of(FIXED, content["name"]))
    if changes.get("epochs", content["epochs"]) < content["epochs"]:
        raise InputError(f"{output}: its runs have {content['epochs']} epochs; --epochs can only be more of them")
    visualdl = scalars_wanted(visualdl, [seed_directory(output, seed) for seed in seeds])
    changes = {**changes, "data": absolute(changes.get("data", content["data"]))}
    with run_dir.lock_run(output):
        content = {**content, **changes, "seeds": seeds}
        write_json(content, Path(output, SEEDS))
        passing = {"device": device, "cache": cache, "download": download, "report": report, "visualdl": visualdl}
        return _train_missing(Path(output), content, passing)


def _train_missing(output, content, passing):
    """Go through all seeds; a run that is finished only gives its history, unless it has fewer epochs than all should.

    passing: what is not kept with the runs, {argument of train_recipe: value}.
    """
    histories, seeds = {}, content["seeds"]
    for number, seed in enumerate(seeds, start=1):
        print(f"seed {seed} ({number} of {len(seeds)}), in {seed_directory(output, seed)}:")
        histories[seed], recipe, dataset = _train_one(seed_directory(output, seed), seed, content, passing)
        gc.collect()  # what the run leaves is in cycles, a few hundred MB that the next one would come on top of
    return TrainedSeeds(output, histories, recipe, dataset)


def _train_one(directory, seed, content, passing):
    options = {key: content[key] for key in TAKEN}
    if read_settings(directory):
        trained = resume_recipe(directory, seed=seed, **options, **passing)
    else:
        trained = train_recipe(seed=seed, output=directory, **options, **passing)
    return trained.history, trained.recipe, trained.dataset
