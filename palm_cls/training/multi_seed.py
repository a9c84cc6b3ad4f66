"""Several runs of one recipe that differ in their seed only, in one directory.

    seeds.json    the seeds, and the options of all runs; written before the first run
    seed-0        the run with seed 0, see `palm_cls.checkpoints.run_dir`
    seed-1        ...

seeds.json holds everything that is needed to finish the runs of an interrupted series.
"""

import gc
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from palm_cls.checkpoints import run_dir
from palm_cls.checkpoints.run_files import SEEDS, read_seeds, read_settings, seed_directory
from palm_cls.core import environment
from palm_cls.core.device import choose_device
from palm_cls.core.errors import InputError
from palm_cls.core.files import write_json
from palm_cls.data.loader_factory import make_loaders
from palm_cls.data.options import moved
from palm_cls.recipes import RECIPES, build_model, image_size_of
from palm_cls.training.experiment import check_unchanged, load_initial_weights, resume_recipe, train_recipe
from palm_cls.training.options import RESUME_KEYS as RUN_KEYS
from palm_cls.training.options import RecipeConfig, absolute, immutable, pop_run_options, split_options
from palm_cls.training.visualdl import scalars_wanted

LEGACY = (  # what seeds.json of older versions lacks
    *("shuffle", "augmentation", "pretrained"),
    *("valid_csv", "valid_fraction", "classes", "ordered", "class_weights", "new_head"),
)
RESUME_KEYS = ("name", *(key for key in RUN_KEYS if key != "seed"))


@dataclass(frozen=True)
class MultiSeedResult:
    """Finished runs that differ in their seed only.

    Attributes:
        output: Path of their directory.
        histories: {seed: what `train` returns}.
        recipe: Their Recipe.
        dataset: The Dataset, or the digits, that they were trained on.
    """

    output: Path
    histories: dict
    recipe: Any
    dataset: Any


def train_seeds(name, seeds, output=None, **options):
    """Train a recipe once with each of several seeds, one after another.

    Each run has the numbers that `train_recipe` gives with its seed.

    Args:
        name: Name of the recipe.
        seeds: The seeds, a list of int.
        output: Directory of the runs, default output/`name`; what was run there before is moved aside.
        **options: As `train_recipe` takes them, but for the seed.

    Returns:
        A MultiSeedResult.

    Raises:
        InputError: Something is missing; then nothing is moved or written.
    """
    require_one_process()
    output = Path(output or Path("output", name))
    config, on_machine, recipe = split_options(name, options)
    check_seeds(seeds)
    on_machine.visualdl = scalars_wanted(on_machine.visualdl)
    choose_device(on_machine.device)
    config.data = absolute(config.data)  # as each run will name it, so that the notice about it comes once
    train_loader, _, dataset = make_loaders(recipe, config.data_options, on_machine.cache, on_machine.download)
    config.settle(dataset, train_loader)
    check_weights(config, output)
    content = {"seeds": list(seeds), "name": name, **{key: getattr(config, key) for key in RESUME_KEYS[1:]}}
    with run_dir.create_seeds_dir(output, content):
        return _train_missing(output, content, asdict(on_machine))


def require_one_process(what="--seeds"):
    """Raise InputError in one of several processes."""
    if environment.world_size() > 1:
        raise InputError(f"{what} is for one process; several train with one --seed")


def check_seeds(seeds, output=None, began=()):
    """Raise InputError unless these are seeds, each once, and all that a directory was begun with are among them."""
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds {list(seeds)}: expected one or more, each once")
    if missing := [seed for seed in began if seed not in seeds]:
        raise InputError(
            f"{output}: begun with seed {missing[0]}, too; --seeds can only add to those it was begun with"
        )


def check_weights(config, output):
    """Raise InputError if the runs could not start from their weights."""
    if not (config.pretrained or config.weights or config.new_head):
        return
    if config.weights and Path(absolute(config.weights)).is_relative_to(absolute(output)):
        raise InputError(
            f"{config.weights}: would be moved aside with {output}, and missing then; give another --output"
        )
    load_initial_weights(build_model(config.model, config.image_size, config.num_classes), config)


def resume_seeds(output, seeds=None, **changes):
    """Finish the runs in a directory of `train_seeds`, and make those that are missing.

    Args:
        output: Directory of the runs.
        seeds: The seeds that were given, and more; None for those that were given.
        **changes: epochs (more of them, for every seed), data (the same images in another place), save_every, device,
            cache, download, report, visualdl (None: where one of the runs did).

    Returns:
        A MultiSeedResult.

    Raises:
        InputError: There are no such runs, or another option would change.
        TypeError: There is no such option.
    """
    require_one_process()
    began = _read_began(output)
    seeds = began["seeds"] if seeds is None else list(seeds)
    check_seeds(seeds, output, began["seeds"])
    on_machine = pop_run_options(changes)
    _check_changes(output, began, changes)
    directories = [seed_directory(output, seed) for seed in seeds]
    on_machine.visualdl = scalars_wanted(on_machine.visualdl, directories)
    began = moved(began, absolute(changes.get("data")))
    changes = {**changes, "data": absolute(began["data"])}
    with run_dir.lock_run(output):
        content = {**began, **changes, "seeds": seeds}
        write_json(content, Path(output, SEEDS))
        return _train_missing(Path(output), content, asdict(on_machine))


def _read_began(output):
    """Read what the runs in a directory began with; InputError if there are none."""
    content = {**{key: getattr(RecipeConfig, key) for key in LEGACY}, **read_seeds(output)}
    if content.get("name") in RECIPES:
        content.setdefault("image_size", image_size_of(content["name"], {}))
    if not {"seeds", *RESUME_KEYS} <= set(content):
        raise InputError(f"{output}: no runs with several seeds there to resume (no {SEEDS} of them in it)")
    return content


def _check_changes(output, began, changes):
    if "seed" in changes:
        raise InputError(f"{output}: runs with several seeds, not with seed {changes['seed']}; leave --seed out")
    if unknown := set(changes) - set(RESUME_KEYS):
        raise TypeError(f"resume_seeds() takes no {', '.join(sorted(unknown))}")
    # Another learning rate would hold for some seeds and not for others.
    check_unchanged(output, began, changes, ("name", "learning_rate", *immutable(began["name"])))
    if changes.get("epochs", began["epochs"]) < began["epochs"]:
        raise InputError(f"{output}: its runs have {began['epochs']} epochs; --epochs can only be more of them")


def _train_missing(output, content, on_machine):
    """Make or resume the run of each seed; a finished run that has all its epochs only returns its history.

    Args:
        output: Directory of the runs.
        content: Content of seeds.json, a dict.
        on_machine: The RunOptions as a dict.
    """
    histories, seeds = {}, content["seeds"]
    for number, seed in enumerate(seeds, start=1):
        print(f"seed {seed} ({number} of {len(seeds)}), in {seed_directory(output, seed)}:")
        histories[seed], recipe, dataset = _train_one(seed_directory(output, seed), seed, content, on_machine)
        gc.collect()  # reference cycles keep a few hundred MB of each run
    return MultiSeedResult(output, histories, recipe, dataset)


def _train_one(directory, seed, content, on_machine):
    options = {key: content[key] for key in RESUME_KEYS}
    if read_settings(directory):
        trained = resume_recipe(directory, seed=seed, **options, **on_machine)
    else:
        trained = train_recipe(seed=seed, output=directory, **options, **on_machine)
    return trained.history, trained.recipe, trained.dataset
