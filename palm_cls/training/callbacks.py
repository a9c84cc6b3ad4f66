"""What comes into the lesson's loop from outside: the events of a training, and its small callbacks."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable

from tqdm import tqdm

from palm_cls.checkpoints.train_state import TrainState
from palm_cls.core.device import current_seed
from palm_cls.core.errors import RunError
from palm_cls.eval.evaluate import predict_all


@dataclass
class StepResult:
    """The outcome of one training step.

    Attributes:
        loss: The tensor to compute gradients from, float32 [].
        value: The mean loss over the batch, in nats.
        num_samples: Images in the batch.
        num_correct: Those of them that are classified correctly.
    """

    loss: Any
    value: float
    num_samples: int
    num_correct: int


@dataclass
class Trainer:
    """A training in progress, as its callbacks see and change it.

    Attributes:
        model: The network to train.
        optimizer: Its optimizer.
        train_loader: Loader of the training images.
        valid_loader: Loader of the validation images.
        config: The TrainConfig.
        callbacks: A list of Callback.
        state: The TrainState: epoch, step, running sums, history.
        network: What computes in training: the model, or what wraps it.
        predict: A function without arguments: the Predictions for all validation images.
        result: The StepResult of the current step.
        metrics: The last validation, {"images", "loss", "accuracy"}.
        predictions: The Predictions behind it.
        should_stop: Whether to end after this step or epoch.
    """

    model: Any
    optimizer: Any
    train_loader: Any
    valid_loader: Any
    config: Any
    callbacks: list
    state: TrainState = None
    network: Any = None
    predict: Callable = None
    result: StepResult = None
    metrics: dict = None
    predictions: Any = None
    should_stop: bool = False

    def __post_init__(self):
        self.state = TrainState(seed=current_seed())
        self.network = self.model
        self.predict = partial(predict_all, self.model, self.valid_loader)

    def notify(self, event):
        """Call the method `event` of all callbacks, in their order."""
        for callback in self.callbacks:
            getattr(callback, event)(self)


class Callback:
    """The events of a training; each receives the Trainer. A callback is also a context manager, closed at the end.

    A training calls on_restore and on_train_begin; for each epoch on_epoch_begin, for each of its steps on_step_begin,
    on_loss (before the gradients) and on_step_end, then on_validation_begin, on_validation_end and on_epoch_end.
    """

    def on_restore(self, trainer):
        """Replace `trainer.state` and the weights by saved ones."""

    def on_train_begin(self, trainer):
        """Everything is in place; the first step comes next."""

    def on_epoch_begin(self, trainer):
        """An epoch begins, or what a saved state leaves of it."""

    def on_step_begin(self, trainer):
        """A batch is loaded."""

    def on_loss(self, trainer):
        """`trainer.result` is computed; gradients are not."""

    def on_step_end(self, trainer):
        """The weights are updated and the step is counted."""

    def on_validation_begin(self, trainer):
        """The last step of the epoch is done."""

    def on_validation_end(self, trainer):
        """`trainer.predictions` and `trainer.metrics` are there and printed."""

    def on_epoch_end(self, trainer):
        """The epoch is in `trainer.state.history`."""

    def close(self):
        """Release what the callback holds."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class ProgressBar(Callback):
    """On a terminal only: images, images per second, time left and loss of the epoch."""

    bar = None

    def on_epoch_begin(self, trainer):
        loader, state = trainer.train_loader, trainer.state
        done = state.batch * loader.batch_size if state.batch else 0
        description = f"epoch {state.epoch}"
        self.bar = tqdm(None, description, loader.num_samples, initial=done, unit=" images", leave=False, disable=None)

    def on_step_end(self, trainer):
        self.bar.set_postfix_str(f"loss {trainer.result.value:.4f}", refresh=False)
        self.bar.update(trainer.result.num_samples)

    def on_validation_begin(self, trainer):
        self.close()

    def close(self):
        if self.bar is not None:
            self.bar.close()


class LearningRateSchedule(Callback):
    """Set the learning rate of each step by its number in the run."""

    def on_step_begin(self, trainer):
        trainer.config.learning_rate.step(trainer.state.step)


class StopAtNaN(Callback):
    """Stop a run whose loss is not finite, before that reaches the weights."""

    def on_loss(self, trainer):
        self._check(trainer, trainer.result.value, "loss")

    def on_validation_end(self, trainer):
        self._check(trainer, trainer.metrics["loss"], "validation loss")

    def _check(self, trainer, loss, name):
        if math.isfinite(loss):
            return
        state, names = trainer.state, trainer.train_loader.names(trainer.state.batch)  # none after the last batch
        images = f"; images: {', '.join(names)}" if names else ""
        raise RunError(
            f"the {name} is {loss} in epoch {state.epoch}, batch_id {state.batch} (step {state.step}), "
            f"learning rate {trainer.optimizer.get_lr()}{images}\n"
            "Checkpoints from before this stay as they are. Go on with a smaller --lr; if the weights have grown too "
            "large already, begin a new run with it."
        )
