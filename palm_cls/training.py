"""The lesson's training: `train`, which knows no network by name, and `train_recipe`, one recipe from seed to run."""

import contextlib
import math
import os
from collections import namedtuple
from pathlib import Path

from tqdm import tqdm

from palm_cls import runtime  # settles the threads before paddle is imported
import paddle

from palm_cls import machine, runs
from palm_cls.checkpoint import load
from palm_cls.files import require_directory
from palm_cls.messages import InputError, RunError, notice
from palm_cls.readers import readers_of
from palm_cls.scalars import Scalars, scalars_wanted
from palm_cls.validation import measures, predict_all, predicted_classes, training_loss
from palm_cls.zoo import CHANGEABLE, build_model, find_recipe

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


def train(
    model,
    train_loader,
    valid_loader,
    epochs=5,
    learning_rate=0.001,
    momentum=0.9,
    weight_decay=0.0,
    log_every=10,
    output=None,
    save_every=None,
    resume=False,
    settings=None,
    remark="",
    visualdl=None,
):
    """Train `model` with the lesson's loop and print the lesson's lines; the defaults are the lesson's.

    Where paddle's launcher has started several processes, they train it together: see `palm_cls.parallel`.

    model: a network that returns logits, float32 [N, num_classes]. train_loader, valid_loader: readers, as
    `data_loader` and `valid_data_loader` return them. epochs: passes over the training images. learning_rate: a number,
    or one of paddle.optimizer.lr whose rate follows from the number of the step alone. momentum: 0 is plain SGD.
    weight_decay: times the weights, added to their gradients. log_every: batches from one line of loss to the next.
    output: directory for checkpoints and log (see `palm_cls.runs`); without it nothing is written. save_every: steps
    from one checkpoint to the next, besides those after every epoch. resume: go on with the run in `output`, as if it
    had never stopped; `model` then takes its weights from there. settings: what else settings.json should tell, {name:
    value}. remark: text after every result. visualdl: write scalars, too (see `palm_cls.scalars`); None: where a run
    that goes on did. A parameter that has no part in a step is left as it is by it, unless paddle runs as it comes.

    Returns a list with one dict an epoch: "epoch" from 0, "learning_rate", "train_loss" and "train_accuracy" (while
    training, over the epoch), "valid_loss" and "valid_accuracy" (after it), "valid_images"; all weighted by sample.
    Raises RunError for a loss that is not finite, another process in `output`, or a process missing in the team;
    InputError for scalars without an output or VisualDL, and where there is no run to resume. With an output, Ctrl-C,
    SIGTERM and SIGHUP finish the step and save.
    """
    if visualdl and not output:
        raise InputError("the scalars for VisualDL go into the directory of the run; give its output, too")
    visualdl = scalars_wanted(visualdl, [output] if resume and output else [])
    schedule = learning_rate if isinstance(learning_rate, paddle.optimizer.lr.LRScheduler) else None
    settings = {
        **getattr(train_loader, "about", {}),
        **(settings or {}),
        "epochs": epochs,
        "learning_rate": schedule.base_lr if schedule else learning_rate,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "save_every": save_every,
        "processes": machine.processes(),
    }
    before = _settings_of(output) if resume else {}
    if resume:
        _refuse_another_number(output, before.get("processes", 1))
    optimizer = _optimizer(model, learning_rate, momentum, weight_decay)
    progress = runs.Progress(seed=runtime.current_seed())

    def save(save_function):
        if writes:
            save_function(output, progress, model, optimizer, train_loader)
        if team:
            team.meet()

    with contextlib.ExitStack() as stack:
        team = stack.enter_context(_together(model, train_loader, valid_loader)) if machine.processes() > 1 else None
        writes = bool(output) and machine.rank() == 0
        if writes and resume:
            stack.enter_context(runs.lock_run(output))
            progress = runs.restore(output, model, optimizer, train_loader) or progress
            runs.write_settings(output, {**before, **settings, "epochs": max(epochs, progress.epoch)})
            notice(_resumed(output, progress, epochs, schedule))
        elif writes:
            stack.enter_context(runs.start_run(output, settings))
        if writes and not runs.checkpoints(output):  # from which it can begin again, whatever becomes of its weights
            runs.save_checkpoint(output, progress, model, optimizer, train_loader)
        if team:
            progress = team.begin(progress, optimizer, settings, output if resume else None)
        scalars = stack.enter_context(contextlib.closing(Scalars(output, progress))) if visualdl and writes else None
        interrupt = stack.enter_context(runtime.DeferredInterrupt(bool(output)))
        if progress.epoch < epochs:
            print("start training ... ")
        while progress.epoch < epochs:
            for _ in train_one_epoch(model, train_loader, optimizer, progress, log_every, scalars, schedule, team):
                stop = interrupt.is_due(team)
                due = stop or (save_every and progress.step % save_every == 0)
                if due and hasattr(train_loader, "rest"):  # or the epoch could not be gone on with
                    save(runs.save_checkpoint)
                if stop:
                    interrupt.deliver()
            predictions = team.predict_all() if team else predict_all(model, valid_loader)
            valid = measures(predictions.logits, predictions.labels)
            tqdm.write(f"[validation] accuracy/loss: {valid['accuracy']}/{valid['loss']} {remark}".rstrip())
            _check_loss(valid["loss"], "validation ", train_loader, optimizer, progress)
            progress.end_epoch(valid, optimizer.get_lr())
            if scalars:  # before the checkpoint, from which a killed run would not come back to this AUC
                scalars.epoch(progress.history[-1], predictions)
            save(runs.save_epoch)
            if interrupt.is_due(team):
                interrupt.deliver()
    return progress.history


def _together(model, train_loader, valid_loader):
    from palm_cls.parallel import together  # which one process never needs

    return together(model, train_loader, valid_loader)


def _refuse_another_number(output, processes):
    """Raise InputError unless as many processes train now as a run was begun with."""
    if processes != machine.processes():
        raise InputError(
            f"{output}: begun with {processes} process{'es' if processes > 1 else ''}, not {machine.processes()}; "
            "a run goes on only as it began. To start several: python -m paddle.distributed.launch --nproc_per_node N"
        )


def _optimizer(model, learning_rate, momentum, weight_decay):
    common = {"parameters": model.parameters(), "weight_decay": weight_decay or None}
    if momentum:
        return paddle.optimizer.Momentum(learning_rate, momentum, **common)
    # Not Momentum(learning_rate, 0): that differs in the last bit, and keeps velocities.
    return paddle.optimizer.SGD(learning_rate, **common)


def _settings_of(output):
    if output and Path(output).exists():
        require_directory(output, "that of a run")
    settings = runs.read_settings(output) if output else {}
    if not settings:
        raise InputError(f"{output}: no run there to resume (no {runs.SETTINGS} in it)")
    return settings


def _resumed(output, progress, epochs, schedule):
    if progress.epoch >= epochs:
        more = "" if schedule else "; more of them (--epochs) extend it"
        return f"{output}: finished, with {progress.epoch} epoch{'s' if progress.epoch > 1 else ''}{more}."
    return f"{output}: {progress.epoch} of {epochs} epochs done; going on after step {progress.step}."


def train_one_epoch(model, loader, optimizer, progress, log_every=10, scalars=None, schedule=None, team=None):
    """Train on what `progress` leaves of its epoch: a generator that yields after each step, `progress` brought on.

    scalars: the Scalars that are told of each step whose loss is printed, or None. schedule: the optimizer's learning
    rate where that changes, or None. team: this and the other processes, see `palm_cls.parallel`, or None.
    """
    network = team.network if team else model
    network.train()
    if hasattr(loader, "epoch"):  # from which, and the seed, varied images follow
        loader.seed, loader.epoch = progress.seed, progress.epoch
    batches = loader.rest(progress.batch) if progress.batch else loader()
    with _progress_bar(loader, progress) as bar:
        for imgs, labels in batches:
            runtime.seed_step(progress.seed, progress.step)
            if schedule:
                schedule.step(progress.step)
            loss, logits = training_loss(network(paddle.to_tensor(imgs)), paddle.to_tensor(labels))
            hits = int((predicted_classes(logits.detach()) == labels.flatten()).sum())
            value, images = loss.item(), len(imgs)
            if team:
                loss, value, images, hits = team.step(loss, images, hits, progress.batch)
            _check_loss(value, "", loader, optimizer, progress)
            if progress.batch % log_every == 0:
                tqdm.write(f"epoch: {progress.epoch}, batch_id: {progress.batch}, loss is: {value:.8g}")
                if scalars:
                    scalars.step(progress, value, optimizer.get_lr())
            loss.backward()
            optimizer.step()
            optimizer.clear_grad(set_to_zero=machine.is_stock())  # no zeros to write, and none to add to

            progress.end_step(images, hits, value)
            bar.set_postfix_str(f"loss {value:.4f}", refresh=False)
            bar.update(images)
            yield


def _progress_bar(loader, progress):
    """On a terminal only: images, images a second, time left and loss of the epoch."""
    done = progress.batch * getattr(loader, "batch_size", 0)
    total = getattr(loader, "images", None)
    return tqdm(None, f"epoch {progress.epoch}", total, initial=done, unit=" images", leave=False, disable=None)


def _check_loss(loss, kind, loader, optimizer, progress):
    """Stop a run whose loss is not finite any more, before it moves the weights."""
    if math.isfinite(loss):
        return
    names = loader.names(progress.batch) if hasattr(loader, "names") else []  # none after the last batch
    images = f"; images: {', '.join(names)}" if names else ""
    raise RunError(
        f"the {kind}loss is {loss} in epoch {progress.epoch}, batch_id {progress.batch} (step {progress.step}), "
        f"learning rate {optimizer.get_lr()}{images}\n"
        "Checkpoints from before this stay as they are. Go on with a smaller --lr; if the weights have grown too large "
        "already, begin a new run with it."
    )


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
    """Train the recipe `name` (see `palm_cls.zoo`) as `tools/train.py` does, and return a TrainedRun.

    That has the `output`, Path of the run's directory, the `history` that `train` returns, the `recipe`, the `dataset`,
    the trained `model`, and the Path of the `report`, or None.

    data: directory of the images, else where those of the recipe usually lie; train_csv: table of the training labels,
    else the names tell them; skip_bad: leave out training images that do not decode; cache: keep resized images on
    disk; download: fetch files of MNIST or Fashion-MNIST that are missing; seed: of all random numbers; weights: where
    to start from, as `load` takes it; pretrained: start from ImageNet's weights, as `build_model` does; device: as
    `choose_device` takes it; output: default output/`name`; save_every, resume, visualdl: as `train` takes them;
    report: write one in the end (see `palm_cls.report`). `changes` override entries of the recipe: epochs, batch_size,
    learning_rate, momentum, shuffle, augmentation. Raises InputError for what is missing.
    """
    recipe = find_recipe(name, **changes)
    output = Path(output or Path("output", name))
    visualdl = scalars_wanted(visualdl, [output] if resume else [])
    device = runtime.choose_device(device)
    train_loader, valid_loader, dataset = readers_of(recipe, data, train_csv, skip_bad, cache, download)
    runtime.set_seed(seed)
    begins = not (resume and runs.checkpoints(output))
    model = build_model(name, pretrained and begins)
    if weights is not None and begins:
        load(weights, model)
    settings = {
        "model": name,
        "data": absolute(dataset.root),
        "demo": dataset.is_demo,
        "train_csv": absolute(train_csv),
        "skip_bad": skip_bad,
        "train_images": train_loader.images,
        "valid_images": valid_loader.images,
        "train_sha256": train_loader.fingerprint,
        "valid_sha256": valid_loader.fingerprint,
        **{key: getattr(recipe, key) for key in CHANGEABLE},
        "schedule": recipe.schedule,
        "seed": seed,
        "weights": absolute(weights),
        "pretrained": pretrained,
        "device": device,
        "threads": runtime.threads(),
        "stock": machine.is_stock(),
    }
    if resume:
        _compare_with_the_beginning(output, settings, train_loader, valid_loader)
    history = train(
        model,
        train_loader,
        valid_loader,
        epochs=recipe.epochs,
        learning_rate=_learning_rate(recipe, recipe.epochs * train_loader.batches),
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        log_every=recipe.log_every,
        output=output,
        save_every=save_every,
        resume=resume,
        settings=settings,
        remark=dataset.remark,
        visualdl=visualdl,
    )
    report = report and machine.rank() == 0
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
    from palm_cls.report import REPORT, tells, write_report  # a second later than the first step

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
    runs.images_of(output, taken, changes.get("data"))


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
    runs.refuse_other_images(output, before, train_loader, valid_loader)
    refuse_changes(output, before, settings, ("model", *fixed_of(FIXED, settings["model"])))
    was = {**before.get("versions", {}), **{name: before.get(name) for name in ("threads", "device", "stock")}}
    now = {**runs.versions(), **{name: settings[name] for name in ("threads", "device", "stock")}}
    changed = [f"{name} {was.get(name)}, now {value}" for name, value in now.items() if was.get(name) != value]
    if changed:
        notice(f"{output}: begun with {'; '.join(changed)}: the last bits of its numbers may differ from here on.")
