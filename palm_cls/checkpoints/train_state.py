"""`TrainState`: how far a run has come."""

from dataclasses import dataclass, field

JSON_KEYS = {"num_samples": "samples", "num_correct": "hits"}  # attribute: its key in the .json of a checkpoint


@dataclass
class TrainState:
    """Position of a run in its training, and the sums over the current epoch."""

    seed: int  # the random numbers of every step follow from it
    epoch: int = 0  # finished epochs
    batch: int = 0  # the next one of the current epoch
    step: int = 0  # finished steps of the whole run
    num_samples: int = 0  # of the current epoch so far
    num_correct: int = 0
    loss: float = 0.0  # summed over these samples
    history: list = field(default_factory=list)  # one dict for each finished epoch, as `train` returns it

    def end_step(self, num_samples, num_correct, loss):
        """Count a finished step.

        Args:
            num_samples: images of the batch.
            num_correct: how many of them were classified correctly.
            loss: mean loss of the batch.
        """
        self.batch += 1
        self.step += 1
        self.num_samples += num_samples
        self.num_correct += num_correct
        self.loss += loss * num_samples

    def end_epoch(self, valid, learning_rate):
        """Append the epoch to the history and begin the next one.

        Args:
            valid: metrics on the validation set, a dict with "loss", "accuracy" and "images".
            learning_rate: of the last step.
        """
        self.history.append(
            {
                "epoch": self.epoch,
                "learning_rate": learning_rate,
                "train_loss": self.loss / self.num_samples,
                "train_accuracy": self.num_correct / self.num_samples,
                "valid_loss": valid["loss"],
                "valid_accuracy": valid["accuracy"],
                "valid_images": valid["images"],
            }
        )
        self.epoch += 1
        self.batch = self.num_samples = self.num_correct = 0
        self.loss = 0.0

    def to_json(self):
        """Return the state as a dict that JSON can hold."""
        return {JSON_KEYS.get(name, name): value for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, content):
        """Return the TrainState of a dict from `to_json`."""
        names = {key: name for name, key in JSON_KEYS.items()}
        return cls(**{names.get(key, key): value for key, value in content.items()})
