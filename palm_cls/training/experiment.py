"""Whole runs: `train`, the lesson's loop and all around it, and `train_recipe`, a recipe from seed to report."""

import contextlib
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from palm_cls.checkpoints import run_dir
from palm_cls.checkpoints.metadata import read_metadata
from palm_cls.checkpoints.pretrained import load_pretrained
from palm_cls.checkpoints.weights import load, resolve_weights
from palm_cls.core import environment
from palm_cls.core.console import log
from palm_cls.core.device import choose_device, num_threads, paddle, set_seed
from palm_cls.core.errors import InputError, shorten
from palm_cls.data.base_loader import as_loader
from palm_cls.data.loader_factory import make_loaders
from palm_cls.data.options import moved
from palm_cls.recipes import RECIPES, build_model, image_size_of
from palm_cls.training import loop
from palm_cls.training.callbacks import LearningRateSchedule, ProgressBar, StopAtNaN
from palm_cls.training.checkpointing import Checkpointing, has_schedule, read_run
from palm_cls.training.interrupt import Interrupt
from palm_cls.training.options import RESUME_KEYS, RecipeConfig, absolute, immutable, split_options
from palm_cls.training.visualdl import VisualDL, scalars_wanted

DISPLAY_NAMES = {"name": "model", "epochs": "number of epochs"}  # in messages
MACHINE = ("threads", "device", "stock")  # settings that may change the last bits of a run


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        output: Path of its directory.
        history: One dict per epoch, as `train` returns them.
        recipe: Its Recipe.
        dataset: The Dataset, or the digits, that it was trained on.
        model: The trained network.
        report: Path of its report, or None.
    """

    output: Path
    history: list
    recipe: Any
    dataset: Any
    model: Any
    report: Optional[Path]


def train(model, train_loader, valid_loader, epochs=5, *, output=None, resume=False, **options):
    """Train a network with the lesson's loop, print the lesson's lines, and keep the run in a directory.

    Processes that Paddle's launcher has started train together: see `palm_cls.training.distributed`. With an output,
    Ctrl-C, SIGTERM and SIGHUP finish the step and save.

    Args:
        model: A network that returns logits, float32 [N, num_classes].
        train_loader: A loader, as `data_loader` returns it, or another callable that yields (imgs, labels) batches.
        valid_loader: The loader of the validation images, likewise.
        epochs: Passes over the training images.
        output: Directory of the run (see `palm_cls.checkpoints.run_dir`); None to write nothing.
        resume: Whether to resume the run in `output` as if it had never stopped; `model` then takes its weights.
        **options: learning_rate (a number, or a scheduler of paddle.optimizer.lr whose rate follows from the number of
            the step alone), momentum, weight_decay, log_every, save_every, remark: see `TrainConfig`; visualdl: whether
            to write scalars for VisualDL (None: where a resumed run did); settings: more content of settings.json.

    Returns:
        The history, one dict per epoch: "epoch" from 0, "learning_rate", "train_loss", "train_accuracy", "valid_loss",
        "valid_accuracy", "valid_images"; losses in nats, accuracies 0..1, every image with equal weight.

    Raises:
        RunError: The loss is not finite, another process uses `output`, or a process of the group has ended.
        InputError: There is no run to resume, or no output or VisualDL for the scalars.
    """
    visualdl, settings = options.pop("visualdl", None), options.pop("settings", None)
    if visualdl and not output:
        raise InputError("the scalars for VisualDL go into the directory of the run; give its output, too")
    config = loop.TrainConfig(epochs=epochs, **options)
    visualdl = scalars_wanted(visualdl, [output] if resume and output else [])
    loaders = as_loader(train_loader), as_loader(valid_loader)
    return _train(model, loaders, config, output, resume, settings=settings, visualdl=visualdl)


def _train(model, loaders, config, output, resume, *, settings, visualdl):
    """Call the lesson's loop with the callbacks that this run needs, and return its history."""
    train_loader, valid_loader = loaders
    for loader in loaders:
        loader.check_fits(model)
    before = read_run(output) if resume else {}
    settings = {
        **train_loader.metadata,
        **(settings or {}),
        **config.as_settings(),
        "processes": environment.world_size(),
    }
    with contextlib.ExitStack() as stack:
        callbacks, group, interrupt = [ProgressBar()], None, None
        if environment.world_size() > 1:
            from palm_cls.training.distributed import ProcessGroup  # which one process never needs

            group = ProcessGroup(model, train_loader, valid_loader, resumed=output if resume else None)
            callbacks.append(group)
        if has_schedule(config):
            callbacks.append(LearningRateSchedule())
        callbacks.append(StopAtNaN())
        if visualdl:
            callbacks.append(VisualDL(output))
        if output:
            interrupt = Interrupt(group)
            callbacks += [interrupt, Checkpointing(output, {**before, **settings}, resume, group)]
        for callback in callbacks:
            stack.enter_context(callback)
        history = loop.train(model, train_loader, valid_loader, config, callbacks)
        if interrupt and interrupt.is_due():
            interrupt.deliver()
    return history


def train_recipe(name, output=None, resume=False, **options):
    """Train a recipe, as `tools/train.py` does.

    Args:
        name: Name of the recipe, see `palm_cls.recipes`.
        output: Directory of the run; by default output/`name`.
        resume: Whether to resume the run in `output`.
        **options: data, train_csv, valid_csv, valid_fraction, classes, positive, skip_bad: see `DataOptions`;
            ordered, class_weights, seed, weights, new_head, pretrained, save_every: see `RecipeConfig`; epochs,
            batch_size, learning_rate, momentum, shuffle, augmentation, image_size: instead of the recipe's; device,
            cache, download, report, visualdl: see `RunOptions`.

    Returns:
        A TrainResult.

    Raises:
        InputError: The recipe, images or weights are missing or do not fit.
        TypeError: There is no such option.
    """
    config, on_machine, recipe = split_options(name, options)
    output = Path(output or Path("output", name))
    visualdl = scalars_wanted(on_machine.visualdl, [output] if resume else [])
    device = choose_device(on_machine.device)
    train_loader, valid_loader, dataset = make_loaders(
        recipe, config.data_options, on_machine.cache, on_machine.download
    )
    config.settle(dataset, train_loader)
    set_seed(config.seed)
    model = build_model(name, config.image_size, config.num_classes)
    if not (resume and run_dir.list_checkpoints(output)):
        load_initial_weights(model, config)
    config.remark = dataset.disclaimer
    config.learning_rate = learning_rate(config, config.epochs * train_loader.num_batches)
    settings = {
        "demo": dataset.is_demo,
        "train_images": train_loader.num_samples,
        "valid_images": valid_loader.num_samples,
        "train_sha256": train_loader.fingerprint,
        "valid_sha256": valid_loader.fingerprint,
        **machine_settings(device),
    }
    if resume:
        _check_resumable(output, {**config.as_settings(), **settings}, train_loader, valid_loader)
    loaders = train_loader, valid_loader
    history = _train(model, loaders, config, output, resume, settings=settings, visualdl=visualdl)
    report = on_machine.report and environment.rank() == 0
    report = _write_report(output, config, train_loader, valid_loader, len(history)) if report else None
    return TrainResult(output, history, recipe, dataset, model, report)


def load_initial_weights(model, config):
    """Load the weights that a RecipeConfig starts from, if it names any."""
    if config.pretrained:
        load_pretrained(model, config.model)
    if config.new_head and config.weights is None:
        raise InputError("--new-head leaves out the last layer of --weights, and there are none; give some")
    if config.weights is not None:
        _check_classes(config)
        shape = model.input_shape
        load(config.weights, model, skip_head=config.new_head)
        model.input_shape = shape  # of this run, whatever the weights were trained on


def _check_classes(config):
    """Refuse weights whose last layer is for as many classes, but others."""
    stored = read_metadata(resolve_weights(config.weights)).get("classes")
    if stored and stored != config.classes and len(stored) == config.num_classes and not config.new_head:
        raise InputError(
            f"{config.weights}: for the classes {shorten(', '.join(map(str, stored)))}, not "
            f"{shorten(', '.join(config.classes))}; with --new-head the last layer is left out"
        )


def learning_rate(config, steps):
    """Return the learning rate as `train` takes it, for a run of so many steps."""
    if config.schedule == "constant":
        return config.learning_rate
    return paddle.optimizer.lr.LambdaDecay(config.learning_rate, lambda step: _cosine(step, steps))


def _cosine(step, steps):
    """Factor of the learning rate in a step, from 0: half a cosine from 1 to 0, times a rise over the first tenth."""
    return min(1, (step + 1) / (0.1 * steps)) * (1 + math.cos(math.pi * step / steps)) / 2


def _write_report(output, config, train_loader, valid_loader, epochs):
    """Return the path of the run's report; None, and a notice, if it cannot be written: the run itself is safe."""
    from palm_cls.eval.report import REPORT, is_current, write_report  # a second later than the first step

    try:
        if is_current(output, epochs):  # of a run that was finished already
            return Path(output, REPORT)
        model = build_model(config.model, config.image_size, config.num_classes)
        return write_report(output, model, train_loader, valid_loader)
    except (InputError, OSError, ImportError) as error:
        log(f"The run in {output} is finished, but its report could not be written: {error}")
        return None


def resume_recipe(output, **changes):
    """Resume the run in a directory as if it had never stopped; its settings hold.

    Args:
        output: Directory of the run.
        **changes: epochs (more of them), learning_rate (from here on), data (the same images in another place),
            save_every, device, cache, download, report, visualdl.

    Returns:
        A TrainResult.

    Raises:
        InputError: There is no run, or another option would change.
    """
    settings = _settings_of(output)
    name = settings["model"]
    if "train_sha256" not in settings:
        raise InputError(
            f"{output}: not a run of a recipe; palm_cls.train(..., resume=True) resumes what `train` began"
        )
    if "positive" in changes:
        raise InputError(f"{output}: its classes are {', '.join(settings['classes'])}; leave --positive out")
    settings = moved(settings, changes.get("data"))
    taken = {key: settings[key] for key in RESUME_KEYS}
    check_unchanged(output, {"name": name, **taken}, changes, (*immutable(name), "name"))
    learning_rate = changes.get("learning_rate", taken["learning_rate"])
    if learning_rate != taken["learning_rate"]:
        log(f"{output}: the learning rate was {taken['learning_rate']}, and is {learning_rate} from here on.")
    return train_recipe(**{"name": name, **taken, **changes}, output=output, resume=True)


def _settings_of(output):
    """Read the settings of a run; what an older version did not store has the defaults of RecipeConfig."""
    settings = {**asdict(RecipeConfig()), **read_run(output)}
    if settings["model"] in RECIPES:
        settings["image_size"] = settings["image_size"] or image_size_of(settings["model"], settings)
    return settings


def check_unchanged(output, taken, changes, names):
    """Raise InputError if an option of a run would change that must not, or if its images are gone.

    Args:
        output: Directory of the run.
        taken: What the run began with, {option: value}.
        changes: What is asked for now, {option: value}.
        names: The options that must not change.
    """
    for name in names:
        now = absolute(changes.get(name)) if name in ("train_csv", "valid_csv", "weights") else changes.get(name)
        if name in changes and now != taken[name]:
            what = DISPLAY_NAMES.get(name, name.replace("_", " "))
            raise InputError(
                f"{output}: its {what} is {_shown(taken[name])}, not {_shown(now)}; a run goes on only as it began. "
                "Leave the option out, or start a new run"
            )
    run_dir.resolve_data_dir(output, taken, changes.get("data"))


def _shown(value):
    return {"None": "none", "True": "on", "False": "off"}.get(str(value), value)


def _check_resumable(output, settings, train_loader, valid_loader):
    """Refuse other images, processes or immutable options than a run began with; report other differences."""
    before = moved(_settings_of(output), settings["data"])
    run_dir.check_same_images(output, before, train_loader, valid_loader)
    check_unchanged(output, before, settings, ("model", *immutable(settings["model"])))
    report_machine(output, before, settings)


def report_machine(output, before, now):
    """Log the versions and settings of MACHINE that are other than those a run began with.

    Args:
        output: Directory of the run.
        before: Its settings, with "versions".
        now: The settings of MACHINE today.
    """
    was = {**before.get("versions", {}), **{name: before.get(name) for name in MACHINE}}
    now = {**run_dir.versions(), **{name: now[name] for name in MACHINE}}
    changed = [f"{name} {was.get(name)}, now {value}" for name, value in now.items() if was.get(name) != value]
    if changed:
        log(f"{output}: begun with {'; '.join(changed)}: the last bits of its numbers may differ from here on.")


def machine_settings(device):
    """Return the settings of MACHINE with this device, a name as `choose_device` returns it."""
    return {"device": device, "threads": num_threads(), "stock": environment.use_paddle_defaults()}
