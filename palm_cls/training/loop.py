"""The lesson's training: `train`, which knows no network by name."""

import contextlib
import math
from pathlib import Path

from tqdm import tqdm

from palm_cls.checkpoints import run_dir
from palm_cls.core import environment
from palm_cls.core.console import notice
from palm_cls.core.device import current_seed, paddle, seed_step
from palm_cls.core.errors import InputError, RunError
from palm_cls.core.files import require_directory
from palm_cls.eval.evaluate import measures, predict_all, predicted_classes
from palm_cls.eval.losses import training_loss
from palm_cls.training.interrupt import DeferredInterrupt
from palm_cls.training.visualdl import Scalars, scalars_wanted


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

    Where paddle's launcher has started several processes, they train it together: see `palm_cls.training.distributed`.

    model: a network that returns logits, float32 [N, num_classes]. train_loader, valid_loader: readers, as
    `data_loader` and `valid_data_loader` return them. epochs: passes over the training images. learning_rate: a number,
    or one of paddle.optimizer.lr whose rate follows from the number of the step alone. momentum: 0 is plain SGD.
    weight_decay: times the weights, added to their gradients. log_every: batches from one line of loss to the next.
    output: directory for checkpoints and log (see `palm_cls.checkpoints.run_dir`); without it nothing is written.
    save_every: steps from one checkpoint to the next, besides those after every epoch. resume: go on with the run in
    `output`, as if it had never stopped; `model` then takes its weights from there. settings: what else settings.json
    should tell, {name: value}. remark: text after every result. visualdl: write scalars, too (see
    `palm_cls.training.visualdl`); None: where a run that goes on did. A parameter that has no part in a step is left as
    it is by it, unless paddle runs as it comes.

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
        **getattr(train_loader, "metadata", {}),
        **(settings or {}),
        "epochs": epochs,
        "learning_rate": schedule.base_lr if schedule else learning_rate,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "save_every": save_every,
        "processes": environment.processes(),
    }
    before = _settings_of(output) if resume else {}
    if resume:
        _refuse_another_number(output, before.get("processes", 1))
    optimizer = _optimizer(model, learning_rate, momentum, weight_decay)
    progress = run_dir.Progress(seed=current_seed())

    def save(save_function):
        if writes:
            save_function(output, progress, model, optimizer, train_loader)
        if team:
            team.meet()

    with contextlib.ExitStack() as stack:
        team = (
            stack.enter_context(_together(model, train_loader, valid_loader)) if environment.processes() > 1 else None
        )
        writes = bool(output) and environment.rank() == 0
        if writes and resume:
            stack.enter_context(run_dir.lock_run(output))
            progress = run_dir.restore(output, model, optimizer, train_loader) or progress
            run_dir.write_settings(output, {**before, **settings, "epochs": max(epochs, progress.epoch)})
            notice(_resumed(output, progress, epochs, schedule))
        elif writes:
            stack.enter_context(run_dir.start_run(output, settings))
        if writes and not run_dir.checkpoints(output):  # from which it can begin again, whatever becomes of its weights
            run_dir.save_checkpoint(output, progress, model, optimizer, train_loader)
        if team:
            progress = team.begin(progress, optimizer, settings, output if resume else None)
        scalars = stack.enter_context(contextlib.closing(Scalars(output, progress))) if visualdl and writes else None
        interrupt = stack.enter_context(DeferredInterrupt(bool(output)))
        if progress.epoch < epochs:
            print("start training ... ")
        while progress.epoch < epochs:
            for _ in train_one_epoch(model, train_loader, optimizer, progress, log_every, scalars, schedule, team):
                stop = interrupt.is_due(team)
                due = stop or (save_every and progress.step % save_every == 0)
                if due and hasattr(train_loader, "iter_from"):  # or the epoch could not be gone on with
                    save(run_dir.save_checkpoint)
                if stop:
                    interrupt.deliver()
            predictions = team.predict_all() if team else predict_all(model, valid_loader)
            valid = measures(predictions.logits, predictions.labels)
            tqdm.write(f"[validation] accuracy/loss: {valid['accuracy']}/{valid['loss']} {remark}".rstrip())
            _check_loss(valid["loss"], "validation ", train_loader, optimizer, progress)
            progress.end_epoch(valid, optimizer.get_lr())
            if scalars:  # before the checkpoint, from which a killed run would not come back to this AUC
                scalars.epoch(progress.history[-1], predictions)
            save(run_dir.save_epoch)
            if interrupt.is_due(team):
                interrupt.deliver()
    return progress.history


def _together(model, train_loader, valid_loader):
    from palm_cls.training.distributed import together

    return together(model, train_loader, valid_loader)


def _refuse_another_number(output, processes):
    """Raise InputError unless as many processes train now as a run was begun with."""
    if processes != environment.processes():
        raise InputError(
            f"{output}: begun with {processes} process{'es' if processes > 1 else ''}, not {environment.processes()}; "
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
    settings = run_dir.read_settings(output) if output else {}
    if not settings:
        raise InputError(f"{output}: no run there to resume (no {run_dir.SETTINGS} in it)")
    return settings


def _resumed(output, progress, epochs, schedule):
    if progress.epoch >= epochs:
        more = "" if schedule else "; more of them (--epochs) extend it"
        return f"{output}: finished, with {progress.epoch} epoch{'s' if progress.epoch > 1 else ''}{more}."
    return f"{output}: {progress.epoch} of {epochs} epochs done; going on after step {progress.step}."


def train_one_epoch(model, loader, optimizer, progress, log_every=10, scalars=None, schedule=None, team=None):
    """Train on what `progress` leaves of its epoch: a generator that yields after each step, `progress` brought on.

    scalars: the Scalars that are told of each step whose loss is printed, or None. schedule: the optimizer's learning
    rate where that changes, or None. team: this and the other processes, see `palm_cls.training.distributed`, or None.
    """
    network = team.network if team else model
    network.train()
    if hasattr(loader, "epoch"):  # from which, and the seed, varied images follow
        loader.seed, loader.epoch = progress.seed, progress.epoch
    batches = loader.iter_from(progress.batch) if progress.batch else loader()
    with _progress_bar(loader, progress) as bar:
        for imgs, labels in batches:
            seed_step(progress.seed, progress.step)
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
            optimizer.clear_grad(set_to_zero=environment.is_stock())  # no zeros to write, and none to add to

            progress.end_step(images, hits, value)
            bar.set_postfix_str(f"loss {value:.4f}", refresh=False)
            bar.update(images)
            yield


def _progress_bar(loader, progress):
    """On a terminal only: images, images a second, time left and loss of the epoch."""
    done = progress.batch * getattr(loader, "batch_size", 0)
    total = getattr(loader, "num_samples", None)
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
