"""`train_recipe`: one recipe from its seed to the directory of its run."""

import math
import os
from collections import namedtuple
from pathlib import Path

from palm_cls.checkpoints import run_dir
from palm_cls.checkpoints.pretrained import load_pretrained
from palm_cls.checkpoints.weights import load
from palm_cls.core import environment
from palm_cls.core.console import notice
from palm_cls.core.device import choose_device, paddle, set_seed, threads
from palm_cls.core.errors import InputError
from palm_cls.data.loader_factory import make_loaders
from palm_cls.recipes import CHANGEABLE, build_model, find_recipe
from palm_cls.training.loop import _refuse_another_number, _settings_of, train
from palm_cls.training.visualdl import scalars_wanted

# What a run that goes on must not change (`fixed_of` a recipe), and all that it takes from its settings.
FIXED = ("train_csv", "skip_bad", "seed", "weights", "pretrained", "batch_size", "momentum", "shuffle", "augmentation")
RESUMED = (*FIXED, "data", "epochs", "learning_rate", "save_every")
BEFORE = {
    "shuffle": True,
    "augmentation": None,
    "pretrained": False,
}  # what held for runs whose settings do not tell it yet

CALLED = {"name": "model", "epochs": "number of epochs"}  # in messages

# output: Path of the run's directory; history: what `train` returns; recipe: the Recipe; dataset: the Dataset or
# Digits; model: the trained network; report: Path of the report, or None
TrainedRun = namedtuple("TrainedRun", ("output", "history", "recipe", "dataset", "model", "report"))


def train_recipe(
    name,
    data=None,
    train_csv=None,
    skip_bad=False,
    seed=0,
    weights=None,
    pretrained=False,
    device=None,
    output=None,
    save_every=None,
    resume=False,
    cache=True,
    download=False,
    report=True,
    visualdl=None,
    **changes,
):
    """Train the recipe `name` (see `palm_cls.recipes`) as `tools/train.py` does, and return a TrainedRun.

    That has the `output`, Path of the run's directory, the `history` that `train` returns, the `recipe`, the `dataset`,
    the trained `model`, and the Path of the `report`, or None.

    data: directory of the images, else where those of the recipe usually lie; train_csv: table of the training labels,
    else the names tell them; skip_bad: leave out training images that do not decode; cache: keep resized images on
    disk; download: fetch files of MNIST or Fashion-MNIST that are missing; seed: of all random numbers; weights: where
    to start from, as `load` takes it; pretrained: start from ImageNet's weights, see `load_pretrained`; device: as
    `choose_device` takes it; output: default output/`name`; save_every, resume, visualdl: as `train` takes them;
    report: write one in the end (see `palm_cls.eval.report`). `changes` override entries of the recipe: epochs,
    batch_size, learning_rate, momentum, shuffle, augmentation. Raises InputError for what is missing.
    """
    recipe = find_recipe(name, **changes)
    output = Path(output or Path("output", name))
    visualdl = scalars_wanted(visualdl, [output] if resume else [])
    device = choose_device(device)
    train_loader, valid_loader, dataset = make_loaders(recipe, data, train_csv, skip_bad, cache, download)
    set_seed(seed)
    begins = not (resume and run_dir.checkpoints(output))
    model = build_model(name)
    if pretrained and begins:
        load_pretrained(model, name)
    if weights is not None and begins:
        load(weights, model)
    settings = {
        "model": name,
        "data": absolute(dataset.root),
        "demo": dataset.is_demo,
        "train_csv": absolute(train_csv),
        "skip_bad": skip_bad,
        "train_images": train_loader.num_samples,
        "valid_images": valid_loader.num_samples,
        "train_sha256": train_loader.fingerprint,
        "valid_sha256": valid_loader.fingerprint,
        **{key: getattr(recipe, key) for key in CHANGEABLE},
        "schedule": recipe.schedule,
        "seed": seed,
        "weights": absolute(weights),
        "pretrained": pretrained,
        "device": device,
        "threads": threads(),
        "stock": environment.is_stock(),
    }
    if resume:
        _compare_with_the_beginning(output, settings, train_loader, valid_loader)
    history = train(
        model,
        train_loader,
        valid_loader,
        epochs=recipe.epochs,
        learning_rate=_learning_rate(recipe, recipe.epochs * train_loader.num_batches),
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        log_every=recipe.log_every,
        output=output,
        save_every=save_every,
        resume=resume,
        settings=settings,
        remark=dataset.disclaimer,
        visualdl=visualdl,
    )
    report = report and environment.rank() == 0
    written = _write_report(output, name, train_loader, valid_loader, len(history)) if report else None
    return TrainedRun(output, history, recipe, dataset, model, written)


def _learning_rate(recipe, steps):
    """As `train` takes it, for a run of so many steps."""
    if recipe.schedule == "constant":
        return recipe.learning_rate
    return paddle.optimizer.lr.LambdaDecay(recipe.learning_rate, lambda step: _cosine(step, steps))


def _cosine(step, steps):
    """Factor of the learning rate in a step, from 0: half a cosine from 1 to 0, times a rise over the first tenth."""
    return min(1, (step + 1) / (0.1 * steps)) * (1 + math.cos(math.pi * step / steps)) / 2


def _write_report(output, name, train_loader, valid_loader, epochs):
    """The Path of the run's report; None, and a notice, where it cannot be written, for the run itself is safe."""
    from palm_cls.eval.report import REPORT, tells, write_report

    try:
        if tells(output, epochs):  # a run that was finished already
            return Path(output, REPORT)
        return write_report(output, build_model(name), train_loader, valid_loader)
    except (InputError, OSError, ImportError) as error:
        notice(f"The run in {output} is finished, but its report could not be written: {error}")
        return None


def resume_recipe(output, **changes):
    """Go on with the run in the directory `output`, as if it had never stopped, and return a TrainedRun.

    `changes` may be epochs (more of them), learning_rate (from here on), data (the same images in another place),
    save_every, device, cache, download, report and visualdl; the run's settings hold for the rest. Raises InputError,
    naming it, for a change of anything else, and where there is no run.
    """
    settings = {**BEFORE, **_settings_of(output)}
    if not {"model", *RESUMED} <= set(settings):
        raise InputError(
            f"{output}: not a run of a recipe; palm_cls.train(..., resume=True) resumes what `train` began"
        )
    taken = {"name": settings["model"], **{key: settings[key] for key in RESUMED}}
    refuse_changes(output, taken, changes, (*fixed_of(FIXED, taken["name"]), "name"))
    _tell_changes(taken, changes, output)
    return train_recipe(**{**taken, **changes}, output=output, resume=True)


def fixed_of(fixed, name):
    """What must not change in runs of the recipe `name`: these, and the epochs over which a learning rate falls."""
    return fixed if find_recipe(name).schedule == "constant" else (*fixed, "epochs")


def refuse_changes(output, taken, changes, fixed):
    """Raise InputError where one of the `changes` of what a run in `output` was begun with is of those that are fixed.

    Also raises it where the images are gone and the changes do not say where they are.
    """
    for key in fixed:
        now = absolute(changes.get(key)) if key in ("train_csv", "weights") else changes.get(key)
        if key in changes and now != taken[key]:
            what = CALLED.get(key, key.replace("_", " "))
            raise InputError(
                f"{output}: its {what} is {_said(taken[key])}, not {_said(now)}; a run goes on only as it began. "
                "Leave the option out, or start a new run"
            )
    run_dir.images_of(output, taken, changes.get("data"))


def _said(value):
    return {"None": "none", "True": "on", "False": "off"}.get(str(value), value)


def absolute(path):
    """As settings.json keeps a path, so that a run can go on from another directory."""
    return None if path is None else os.path.abspath(path)


def _tell_changes(taken, changes, output):
    lr = changes.get("learning_rate", taken["learning_rate"])
    if lr != taken["learning_rate"]:
        notice(f"{output}: the learning rate was {taken['learning_rate']}, and is {lr} from here on.")


def _compare_with_the_beginning(output, settings, train_loader, valid_loader):
    """Refuse other images, processes or fixed settings than the run in `output` began with; tell what else differs."""
    before = {**BEFORE, **_settings_of(output)}
    _refuse_another_number(output, before.get("processes", 1))
    run_dir.refuse_other_images(output, before, train_loader, valid_loader)
    refuse_changes(output, before, settings, ("model", *fixed_of(FIXED, settings["model"])))
    was = {**before.get("versions", {}), **{name: before.get(name) for name in ("threads", "device", "stock")}}
    now = {**run_dir.versions(), **{name: settings[name] for name in ("threads", "device", "stock")}}
    changed = [f"{name} {was.get(name)}, now {value}" for name, value in now.items() if was.get(name) != value]
    if changed:
        notice(f"{output}: begun with {'; '.join(changed)}: the last bits of its numbers may differ from here on.")
