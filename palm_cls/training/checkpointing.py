"""The directory of a run, kept while it trains: settings, checkpoints, log; and a run that is resumed."""

from pathlib import Path

from palm_cls.checkpoints import run_dir
from palm_cls.core import environment
from palm_cls.core.console import log
from palm_cls.core.errors import InputError
from palm_cls.core.files import require_directory
from palm_cls.training.callbacks import Callback


class Checkpointing(Callback):
    """Save a run in its directory (see `palm_cls.checkpoints.run_dir`), or resume it from there.

    Args:
        output: Directory of the run.
        settings: Content of settings.json, a dict.
        resume: Whether to resume the run in `output`.
        group: The ProcessGroup that trains together, whose rank 0 writes; None for a single process.
    """

    lock = None

    def __init__(self, output, settings, resume=False, group=None):
        self.output, self.settings, self.resume, self.group = output, settings, resume, group
        self.writes = environment.rank() == 0

    def on_restore(self, trainer):
        if not self.writes:
            return
        if self.resume:
            self._resume(trainer)
        else:
            self.lock = run_dir.create_run_dir(self.output, self.settings)
        if not run_dir.list_checkpoints(self.output):  # to resume from, whatever becomes of the weights
            self._write(run_dir.save_checkpoint, trainer)

    def _resume(self, trainer):
        self.lock = run_dir.lock_run(self.output)
        parts = trainer.model, trainer.optimizer, trainer.train_loader
        trainer.state = run_dir.restore(self.output, *parts) or trainer.state
        epochs = max(trainer.config.epochs, trainer.state.epoch)
        run_dir.write_settings(self.output, {**self.settings, "epochs": epochs})
        log(_position(self.output, trainer))

    def on_step_end(self, trainer):
        save_every = trainer.config.save_every
        due = trainer.should_stop or (save_every and trainer.state.step % save_every == 0)
        if due and trainer.train_loader.resumable:
            self._save(run_dir.save_checkpoint, trainer)

    def on_epoch_end(self, trainer):
        self._save(run_dir.save_epoch, trainer)

    def _save(self, save, trainer):
        if self.writes:
            self._write(save, trainer)
        if self.group:
            self.group.barrier()

    def _write(self, save, trainer):
        save(self.output, trainer.state, trainer.model, trainer.optimizer, trainer.train_loader)

    def close(self):
        if self.lock:
            self.lock.close()


def _position(output, trainer):
    state, epochs = trainer.state, trainer.config.epochs
    if state.epoch < epochs:
        return f"{output}: {state.epoch} of {epochs} epochs done; resuming after step {state.step}."
    done = f"{output}: already finished ({state.epoch} epoch{'s' if state.epoch > 1 else ''})"
    return f"{done}." if has_schedule(trainer.config) else f"{done}; raise --epochs to continue."


def has_schedule(config):
    """Whether the learning rate of a TrainConfig follows a schedule of paddle.optimizer.lr."""
    return hasattr(config.learning_rate, "base_lr")


def read_run(output):
    """Read the settings of a run that is to be resumed.

    Raises:
        InputError: There is no run in `output`, or it has another number of processes.
    """
    if output and Path(output).exists():
        require_directory(output, "that of a run")
    settings = run_dir.read_settings(output) if output else {}
    if not settings:
        raise InputError(f"{output}: no run there to resume (no {run_dir.SETTINGS} in it)")
    _check_world_size(output, settings.get("processes", 1))
    return settings


def _check_world_size(output, processes):
    """Raise InputError unless a run that began with so many processes has as many now."""
    if processes != environment.world_size():
        raise InputError(
            f"{output}: begun with {processes} process{'es' if processes > 1 else ''}, not {environment.world_size()}; "
            "a run goes on only as it began. To start several: python -m paddle.distributed.launch --nproc_per_node N"
        )
