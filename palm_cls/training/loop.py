"""The lesson's training: `train`, for any network and any loader."""

from dataclasses import dataclass
from typing import Optional

from tqdm import tqdm

from palm_cls.core import environment
from palm_cls.core.device import paddle, seed_step
from palm_cls.eval.evaluate import compute_metrics, count_correct
from palm_cls.eval.losses import training_loss
from palm_cls.training.callbacks import StepResult, Trainer


@dataclass
class TrainConfig:
    """How a network is trained; the defaults are the lesson's. settings.json stores it.

    Attributes:
        epochs: Passes over the training images.
        learning_rate: A number, or a scheduler of paddle.optimizer.lr.
        momentum: 0 selects plain SGD.
        weight_decay: Factor of the weights that is added to their gradients.
        log_every: Batches from one printed loss to the next.
        save_every: Steps from one checkpoint to the next, besides those after every epoch.
        loss_weights: Factor of each class in the training loss, a list; None for 1.
        remark: Text after every validation result.
    """

    epochs: int = 5
    learning_rate: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 0.0
    log_every: int = 10
    save_every: Optional[int] = None
    loss_weights: Optional[list] = None
    remark: str = ""

    def as_settings(self):
        """Return the options as settings.json stores them: of a schedule, its first learning rate; no remark."""
        options = {**vars(self), "learning_rate": getattr(self.learning_rate, "base_lr", self.learning_rate)}
        del options["remark"]
        return options


def train(model, train_loader, valid_loader, config=None, callbacks=()):
    """Train a network with the lesson's loop and print the lesson's lines.

    Args:
        model: A network that returns logits, float32 [N, num_classes].
        train_loader: A BaseLoader of the training images.
        valid_loader: A BaseLoader of the validation images.
        config: A TrainConfig; by default the lesson's.
        callbacks: Callback objects, called in this order at every event: see `palm_cls.training.callbacks`.

    Returns:
        The history, one dict per epoch: "epoch" from 0, "learning_rate", "train_loss", "train_accuracy",
        "valid_loss", "valid_accuracy", "valid_images". Losses (nats) and accuracies (0..1) weight every image equally.
    """
    config = config or TrainConfig()
    optimizer = make_optimizer(model, config)
    trainer = Trainer(model, optimizer, train_loader, valid_loader, config, list(callbacks))
    trainer.notify("on_restore")
    trainer.notify("on_train_begin")
    state = trainer.state
    if state.epoch < config.epochs:
        print("start training ... ")

    while state.epoch < config.epochs and not trainer.should_stop:
        trainer.notify("on_epoch_begin")
        trainer.network.train()
        train_loader.seed, train_loader.epoch = state.seed, state.epoch  # augmentation follows from them
        for imgs, labels in train_loader.iter_from(state.batch) if state.batch else train_loader():
            trainer.notify("on_step_begin")
            seed_step(state.seed, state.step)  # dropout follows from it
            labels = paddle.to_tensor(labels)
            loss, logits = training_loss(trainer.network(paddle.to_tensor(imgs)), labels, config.loss_weights)
            trainer.result = StepResult(loss, loss.item(), len(imgs), count_correct(logits.detach(), labels))
            trainer.notify("on_loss")
            if state.batch % config.log_every == 0:
                tqdm.write(f"epoch: {state.epoch}, batch_id: {state.batch}, loss is: {trainer.result.value:.8g}")

            trainer.result.loss.backward()
            optimizer.step()
            optimizer.clear_grad(set_to_zero=environment.use_paddle_defaults())  # no zeros to write, and none to add to
            state.end_step(trainer.result.num_samples, trainer.result.num_correct, trainer.result.value)
            trainer.notify("on_step_end")
            if trainer.should_stop:
                return state.history

        trainer.notify("on_validation_begin")
        trainer.predictions = trainer.predict()
        trainer.metrics = compute_metrics(trainer.predictions.logits, trainer.predictions.labels)
        result = f"{trainer.metrics['accuracy']}/{trainer.metrics['loss']}"
        tqdm.write(f"[validation] accuracy/loss: {result} {config.remark}".rstrip())
        trainer.notify("on_validation_end")
        state.end_epoch(trainer.metrics, optimizer.get_lr())
        trainer.notify("on_epoch_end")
    return state.history


def make_optimizer(model, config):
    """Make the optimizer of a TrainConfig: the lesson's Momentum, or SGD without momentum."""
    common = {"parameters": model.parameters(), "weight_decay": config.weight_decay or None}
    if config.momentum:
        return paddle.optimizer.Momentum(config.learning_rate, config.momentum, **common)
    # Not Momentum(learning_rate, 0): that differs in the last bit, and keeps velocities.
    return paddle.optimizer.SGD(config.learning_rate, **common)
