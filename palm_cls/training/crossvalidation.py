"""Cross-validation: every training image predicted by a network that was trained without it, and without its group.

    crossvalidation.json    the options of all runs; written before the first
    folds.csv               a row an image: its group and its fold
    seed-0/fold-0           the run without fold 0: settings, log, held_out.csv with the predictions of fold 0;
                            checkpoints only while it trains
    predictions.csv, results.json, report.html, figures    of all folds of all seeds, written at the end

The last epoch of a run counts, not its best, which would be chosen on the images that it is measured on.
"""

import contextlib
import copy
import gc
import os
import time
from dataclasses import fields
from pathlib import Path

from palm_cls.checkpoints import run_dir
from palm_cls.checkpoints.run_files import (
    CROSSVALIDATION,
    fold_directory,
    read_crossvalidation_settings,
    read_settings,
)
from palm_cls.checkpoints.weights import resolve_weights
from palm_cls.core.console import log
from palm_cls.core.device import choose_device, set_seed
from palm_cls.core.errors import InputError
from palm_cls.core.files import write_json
from palm_cls.data.augment import EIGHT_VIEWS
from palm_cls.data.groups import find_groups, split_folds
from palm_cls.data.loader_factory import make_train_loader
from palm_cls.data.options import moved
from palm_cls.eval.crossvalidation import format_fold, read_crossvalidation, write_results
from palm_cls.eval.crossvalidation_report import write_page
from palm_cls.eval.evaluate import predict_all
from palm_cls.eval.predictions_file import (
    FOLD_TABLE,
    HELD_OUT,
    prediction_row,
    read_fold_table,
    read_held_out,
    write_exactly,
)
from palm_cls.recipes import OVERRIDABLE, build_model, find_recipe
from palm_cls.training.experiment import (
    learning_rate,
    load_initial_weights,
    machine_settings,
    report_machine,
    train,
)
from palm_cls.training.multi_seed import check_seeds, check_weights, require_one_process
from palm_cls.training.options import RecipeConfig, RunOptions, balanced_weights, split_options


def crossvalidate(name, output=None, folds=5, seeds=(0,), groups=True, **options):
    """Cross-validate a recipe on the training images of a data set, and print a line a fold.

    Args:
        name: Name of the recipe, one on photographs.
        output: Directory of the runs, default output/`name`-folds; what was there before is moved aside.
        folds: Number of folds.
        seeds: All folds are run once with each of these.
        groups: Whether images of a group (see `palm_cls.data.groups.find_groups`) stay in one fold.
        **options: As `train_recipe` takes them, but for valid_csv, valid_fraction, seed, report and visualdl. Images
            that are not divided into training and validation images are all used.

    Returns:
        A CrossValidation, see `palm_cls.eval.crossvalidation`.

    Raises:
        InputError: Something is missing, the images cannot be divided so, or the weights to start from were trained on
            them.
    """
    require_one_process("a cross-validation")
    check_seeds(seeds)
    output = Path(output or Path("output", f"{name}-folds"))
    config, on_machine, recipe = split_options(name, options)
    device = choose_device(on_machine.device)
    loader, dataset = _make_loader(recipe, config, on_machine)
    config.settle(dataset, loader)
    check_weights(config, output)
    _check_unseen(config, loader)
    table, rule = _fold_table(loader, folds, groups)
    settings = config.as_settings()
    del settings["seed"], settings["loss_weights"]  # each run has its own
    content = {
        **settings,
        "folds": folds,
        "seeds": list(seeds),
        "groups": rule,
        "images_sha256": loader.fingerprint,
        "demo": dataset.is_demo,
        **machine_settings(device),
    }
    with run_dir.create_crossvalidation_dir(output, content):
        write_exactly(table, output / FOLD_TABLE)
        return _run_missing(output, content, config, loader)


def resume_crossvalidation(output, seeds=None, data=None, **options):
    """Finish a cross-validation as if it had never stopped.

    Args:
        output: Its directory.
        seeds: The seeds that were given, and more; None for those that were given.
        data: The directory of the same images, if they have moved.
        **options: device and cache, see `RunOptions`.

    Returns:
        A CrossValidation.

    Raises:
        InputError: There is none to resume, or its images are not those that it began with.
    """
    require_one_process("a cross-validation")
    content = read_crossvalidation_settings(output)
    if not content:
        raise InputError(f"{output}: no cross-validation there to resume (no {CROSSVALIDATION} in it)")
    seeds = content["seeds"] if seeds is None else list(seeds)
    check_seeds(seeds, output, content["seeds"])
    on_machine = RunOptions(**options)
    content = moved(content, data)
    config = RecipeConfig(
        **{entry.name: content[entry.name] for entry in fields(RecipeConfig) if entry.name in content}
    )
    recipe = find_recipe(config.model, **{key: getattr(config, key) for key in OVERRIDABLE})
    report_machine(output, content, machine_settings(choose_device(on_machine.device)))
    config.data = run_dir.resolve_data_dir(output, content, data)
    loader, dataset = _make_loader(recipe, config, on_machine)
    if loader.fingerprint != content["images_sha256"]:
        raise InputError(
            f"{output}: begun with other images or labels than {loader.directory} has; give theirs with --data"
        )
    config.settle(dataset, loader)
    with run_dir.lock_run(output):
        content = {**content, "seeds": seeds, "data": config.data}
        write_json(content, Path(output, CROSSVALIDATION))
        if not Path(output, FOLD_TABLE).is_file():  # killed before it was written
            table, _ = _fold_table(loader, content["folds"], content["groups"] is not None)
            write_exactly(table, Path(output, FOLD_TABLE))
        return _run_missing(Path(output), content, config, loader)


def _make_loader(recipe, config, on_machine):
    if recipe.dataset != "palm":
        raise InputError(f"{config.model} is for digits; a cross-validation takes a recipe on photographs")
    return make_train_loader(recipe, config.data_options, on_machine.cache)


def _check_unseen(config, loader):
    """Refuse weights to start from that were trained on the images of the loader; warn of others."""
    if config.weights is None:
        return
    settings = read_settings(resolve_weights(config.weights))
    # The images of a run on the same source, of which a part was for validation, are in most folds.
    is_same_source = all(settings.get(key, "") == getattr(config, key) for key in ("data", "train_csv"))
    if settings.get("train_sha256") == loader.fingerprint or is_same_source:
        raise InputError(
            f"{config.weights}: trained on these very images, so that it has seen every fold; leave --weights out, or "
            "give weights of other images"
        )
    log(
        f"Each fold starts from {config.weights}: if that was trained on any of these images, the results are too good."
    )


def _fold_table(loader, folds, groups):
    """Return ([{"imgName", "Label", "group", "fold"}, ...], sorted by name, and the rule of the groups or None)."""
    label_of, rule = dict(sorted(zip(loader.order, loader.labels))), None
    group_of = {name: number for number, name in enumerate(label_of)}
    if groups:
        group_of, rule = find_groups(loader)
        log(f"What stays together in a fold: {rule}; {len(set(group_of.values()))} groups (not with --no-groups).")
    names, labels = zip(*label_of.items())
    group_numbers = [group_of[name] for name in names]
    rows = zip(names, labels, group_numbers, split_folds(labels, group_numbers, folds, loader.classes))
    return [dict(zip(("imgName", "Label", "group", "fold"), row)) for row in rows], rule


def _run_missing(output, content, config, loader):
    num_classes = config.num_classes
    fold_of = {row["imgName"]: row["fold"] for row in read_fold_table(output, content["folds"], num_classes)}
    if set(fold_of) != set(loader.order):
        raise InputError(f"{output / FOLD_TABLE}: its images are not those of {loader.directory}; start a new one")
    for seed in content["seeds"]:
        for fold in range(content["folds"]):
            directory = fold_directory(output, seed, fold)
            begun = time.monotonic()
            if not (directory / HELD_OUT).is_file():
                config.seed = seed
                _run_fold(directory, config, *_divide(loader, fold_of, fold))
            run_dir.drop_weights(directory)
            gc.collect()  # reference cycles keep a few hundred MB of each run
            seconds = time.monotonic() - begun
            line = format_fold(read_held_out(directory, num_classes), seconds)
            print(f"seed {seed}, fold {fold + 1} of {content['folds']}: {line}")
    result = read_crossvalidation(output)
    write_page(result, write_results(result), loader)
    return result


def _divide(loader, fold_of, fold):
    """Return the loaders of a fold: of all other images, to train, and of its own."""
    rest, held_out = copy.copy(loader), copy.copy(loader)
    rest.samples, held_out.samples = [], []
    for sample in sorted(loader.samples):
        (held_out if fold_of[loader.name_of(sample)] == fold else rest).samples.append(sample)
    rest.built_augmentations = {}  # that of the paper follows from the images
    held_out.shuffle, held_out.mode, held_out.augmentation = False, "valid", None
    return rest, held_out


def _run_fold(directory, config, train_loader, held_out):
    """Train on all other folds, or go on with it, and write the predictions of this one."""
    set_seed(config.seed)
    model = build_model(config.model, config.image_size, config.num_classes)
    resumed = bool(read_settings(directory))
    if not run_dir.list_checkpoints(directory):
        load_initial_weights(model, config)
    options = {key: getattr(config, key) for key in ("momentum", "weight_decay", "log_every", "save_every")}
    if config.class_weights:
        options["loss_weights"] = balanced_weights(train_loader.labels, config.num_classes)
    options["learning_rate"] = learning_rate(config, config.epochs * train_loader.num_batches)
    options["settings"] = {"model": config.model, "seed": config.seed}
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        train(model, train_loader, held_out, config.epochs, output=directory, resume=resumed, **options)
    one_view = predict_all(model, held_out)
    held_out.views = EIGHT_VIEWS
    eight_views = predict_all(model, held_out)
    columns = one_view.names, one_view.labels[:, 0], one_view.logits, eight_views.logits
    write_exactly([prediction_row(*row) for row in zip(*columns)], directory / HELD_OUT)
