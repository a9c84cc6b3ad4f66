"""The lesson's training: `train`, which knows no network by name, and `train_recipe`, one recipe from seed to run."""

import contextlib
import math
import os
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from palm_cls import runtime  # settles the threads before paddle is imported
import paddle

from palm_cls import runs

from palm_cls.checkpoint import load
from palm_cls.dataset import find_dataset
from palm_cls.evaluation import cross_entropy, evaluate, predicted_classes
from palm_cls.readers import dataset_readers
from palm_cls.messages import InputError, RunError, notice
from palm_cls.zoo import build_model, find_recipe

# What a run that goes on must not change, and all that it takes from its settings.
FIXED = ("train_csv", "skip_bad", "seed", "weights", "batch_size", "momentum")
RESUMED = (*FIXED, "data", "epochs", "learning_rate", "save_every")

# output: Path of the run's directory; history: what `train` returns; recipe: the Recipe; dataset: the Dataset;
# model: the trained network
TrainedRun = namedtuple("TrainedRun", ("output", "history", "recipe", "dataset", "model"))


def train(
    model,
    train_loader,
    valid_loader,
    epochs=5,
    learning_rate=0.001,
    momentum=0.9,
    log_every=10,
    output=None,
    save_every=None,
    resume=False,
    settings=None,
    remark="",
):
    """Train `model` with the lesson's loop and print the lesson's lines; the defaults are the lesson's.

    train_loader, valid_loader: readers, as `data_loader` and `valid_data_loader` return them. log_every: batches from
    one line of loss to the next. output: directory for checkpoints and log (see `palm_cls.runs`); without it nothing is
    written. save_every: steps from one checkpoint to the next, besides those after every epoch. resume: go on with the
    run in `output`, as if it had never stopped; `model` then takes its weights from there. settings: what else
    settings.json should tell, {name: value}. remark: text after every result.

    Returns a list with one dict an epoch: "epoch" from 0, "learning_rate", "train_loss" and "train_accuracy" (while
    training, over the epoch), "valid_loss" and "valid_accuracy" (after it), "valid_images"; all weighted by sample.
    Raises RunError for a loss that is not finite, or another process in `output`. Ctrl-C finishes the step and saves.
    """
    settings = {**(settings or {}), "epochs": epochs, "learning_rate": learning_rate, "momentum": momentum}
    optimizer = paddle.optimizer.Momentum(learning_rate, momentum, parameters=model.parameters())
    progress = runs.Progress(seed=runtime.current_seed())

    def save(save_function):
        if output:
            save_function(output, progress, model, optimizer, train_loader)

    with contextlib.ExitStack() as stack:
        if output:
            stack.enter_context(runs.lock_run(output) if resume else runs.start_run(output, settings))
        if resume:
            progress = runs.restore(output, model, optimizer, train_loader) or progress
            runs.write_settings(output, settings)
            notice(_resumed(output, progress, epochs))
        interrupt = stack.enter_context(runtime.DeferredInterrupt(bool(output)))
        print("start training ... ")
        while progress.epoch < epochs:
            for _ in train_one_epoch(model, train_loader, optimizer, progress, log_every):
                due = interrupt.requested or (save_every and progress.step % save_every == 0)
                if due and hasattr(train_loader, "rest"):  # or the epoch could not be gone on with
                    save(runs.save_checkpoint)
                interrupt.raise_if_requested()
            valid = evaluate(model, valid_loader)
            tqdm.write(f"[validation] accuracy/loss: {valid['accuracy']}/{valid['loss']} {remark}".rstrip())
            progress.end_epoch(valid, optimizer.get_lr())
            save(runs.save_epoch)
            interrupt.raise_if_requested()
    return progress.history


def _resumed(output, progress, epochs):
    if progress.epoch >= epochs:
        return f"{output}: finished, with {progress.epoch} epochs; more of them (--epochs) extend it."
    return f"{output}: going on in epoch {progress.epoch} of {epochs}, after step {progress.step}."


def train_one_epoch(model, loader, optimizer, progress, log_every=10):
    """Train on what `progress` leaves of its epoch: a generator that yields after each step, `progress` brought on."""
    model.train()
    batches = loader.rest(progress.batch) if progress.batch else loader()
    bar = tqdm(
        batches,
        f"epoch {progress.epoch}",
        getattr(loader, "batches", None),
        initial=progress.batch,
        leave=False,
        disable=None,
    )
    for imgs, labels in bar:
        runtime.seed_step(progress.seed, progress.step)
        logits = model(paddle.to_tensor(imgs))
        loss = cross_entropy(logits, paddle.to_tensor(labels))
        _check_loss(loss.item(), loader, optimizer, progress)
        if progress.batch % log_every == 0:
            tqdm.write(f"epoch: {progress.epoch}, batch_id: {progress.batch}, loss is: {loss.item():.8g}")
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()

        hits = int((predicted_classes(logits.detach()) == labels.flatten()).sum())
        progress.end_step(len(imgs), hits, loss.item())
        yield


def _check_loss(loss, loader, optimizer, progress):
    """Stop a run whose loss is not a number any more, before it moves the weights."""
    if math.isfinite(loss):
        return
    images = f"; images: {', '.join(loader.names(progress.batch))}" if hasattr(loader, "names") else ""
    raise RunError(
        f"the loss is {loss} in epoch {progress.epoch}, batch_id {progress.batch} (step {progress.step}), "
        f"learning rate {optimizer.get_lr()}{images}\n"
        "Checkpoints from before this stay as they are; a smaller learning rate may help."
    )


def train_recipe(
    name,
    data=None,
    train_csv=None,
    skip_bad=False,
    seed=0,
    weights=None,
    device=None,
    output=None,
    save_every=None,
    resume=False,
    **changes,
):
    """Train the recipe `name` (see `palm_cls.zoo`) as `tools/train.py` does, and return a TrainedRun.

    data: directory of the data set, as `find_dataset` takes it; train_csv: table of the training labels; skip_bad:
    leave out training images that do not decode; weights: where to start from, as `load` takes it; device: as
    `choose_device` takes it; output: default output/`name`; save_every, resume: as `train` takes them. `changes`
    override entries of the recipe: epochs, batch_size, learning_rate, momentum. Raises InputError for what is missing.
    """
    recipe = replace(find_recipe(name), **changes)
    device = runtime.choose_device(device)
    dataset = find_dataset(data)
    train_loader, valid_loader = dataset_readers(dataset, recipe.batch_size, train_csv, skip_bad)
    runtime.set_seed(seed)
    model = build_model(name)
    if weights is not None and not (resume and runs.checkpoints(output)):
        load(weights, model)
    if resume and runs.read_settings(output)["images_sha256"] != train_loader.fingerprint:
        raise InputError(f"{output}: its run began with other training images or labels than {dataset.root} has now")
    settings = {
        "model": name,
        "data": _absolute(dataset.root),
        "demo": dataset.is_demo,
        "train_csv": _absolute(train_csv),
        "skip_bad": skip_bad,
        "train_images": train_loader.images,
        "valid_images": valid_loader.images,
        "images_sha256": train_loader.fingerprint,
        "batch_size": recipe.batch_size,
        "seed": seed,
        "weights": _absolute(weights),
        "save_every": save_every,
        "device": device,
        "threads": runtime.threads(),
    }
    output = Path(output or Path("output", name))
    history = train(
        model,
        train_loader,
        valid_loader,
        epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        momentum=recipe.momentum,
        output=output,
        save_every=save_every,
        resume=resume,
        settings=settings,
        remark=dataset.remark,
    )
    return TrainedRun(output, history, recipe, dataset, model)


def resume_recipe(output, **changes):
    """Go on with the run in the directory `output`, as if it had never stopped, and return a TrainedRun.

    `changes` may be epochs (more of them), learning_rate (from here on), data (the same images in another place),
    save_every and device; the run's settings hold for the rest. Raises InputError, naming it, for a change of anything
    else, and where there is no run.
    """
    settings = runs.read_settings(output)
    if not settings:
        raise InputError(f"{output}: no run there to resume (no {runs.SETTINGS} in it)")
    if not {"model", *RESUMED} <= set(settings):
        raise InputError(
            f"{output}: not a run of a recipe; palm_cls.train(..., resume=True) resumes what `train` began"
        )
    taken = {"name": settings["model"], **{key: settings[key] for key in RESUMED}}
    changes.update({key: _absolute(changes[key]) for key in ("train_csv", "weights") if key in changes})
    for key in (*FIXED, "name"):
        if changes.get(key, taken[key]) != taken[key]:
            raise InputError(
                f"{output}: its {key.replace('_', ' ')} is {taken[key]}, not {changes[key]}; a run goes on only as it "
                "began. Leave the option out, or start a new run"
            )
    _tell_changes(taken, changes, output)
    return train_recipe(**{**taken, **changes}, output=output, resume=True)


def _absolute(path):
    """As settings.json keeps a path, so that a run can go on from another directory."""
    return None if path is None else os.path.abspath(path)


def _tell_changes(taken, changes, output):
    lr = changes.get("learning_rate", taken["learning_rate"])
    if lr != taken["learning_rate"]:
        notice(f"{output}: the learning rate was {taken['learning_rate']}, and is {lr} from here on.")
    if changes.get("epochs", taken["epochs"]) < taken["epochs"]:
        notice(f"{output}: {changes['epochs']} epochs in all, where {taken['epochs']} were planned.")
