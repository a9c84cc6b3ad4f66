"""Data-parallel training: processes that `python -m paddle.distributed.launch` starts train one network together.

All processes have the same network, settings and seed, and so the same order of the images. Each loads its shard of
every batch, and the gradients are averaged over the whole batch. A step therefore equals that of a single process,
except for dropout, whose masks each process draws on its own, and batch normalisation, which sees one shard only.

Only rank 0 prints and writes to the directory of the run. A single process does not import this module.
"""

import contextlib
import ctypes
import functools
import hashlib
import io
import itertools
import json
import os
import random
import signal
import sys
import time

import numpy as np

from palm_cls.checkpoints import run_dir
from palm_cls.core import environment
from palm_cls.core.device import paddle
from palm_cls.core.errors import InputError, RunError, shorten
from palm_cls.eval.evaluate import Predictions, predict_all
from palm_cls.training.callbacks import Callback, StepResult

import paddle.distributed as dist

SETTINGS = ("epochs", "learning_rate", "momentum", "weight_decay", "save_every", "loss_weights")
STATISTICS = ("_mean", "_variance")  # Paddle's names of the running statistics of batch normalisation
BARRIER_TIMEOUT, POLL_INTERVAL = 1800, 0.02  # seconds
barriers = itertools.count()


class ProcessGroup(Callback):
    """The processes that train one network together; all call the same methods in the same order.

    Args:
        model: The network, the same in all processes.
        train_loader: A BaseLoader; each process loads its shard of every batch.
        valid_loader: A BaseLoader, likewise.
        resumed: Directory of the run that is resumed, or None.

    Raises:
        InputError: The loaders cannot be divided, or a batch has fewer images than there are processes.
        RunError: In any method: another process has ended or does not answer.
    """

    def __init__(self, model, train_loader, valid_loader, resumed=None):
        self.rank, self.processes = environment.rank(), environment.world_size()
        self.model, self.train_loader, self.valid_loader, self.resumed = model, train_loader, valid_loader, resumed
        self.stack = contextlib.ExitStack()
        self._check_loaders()

    def _check_loaders(self):
        if not dist.is_available():
            raise InputError("this paddle cannot have several processes train together; start one, or do it on Linux")
        if not (self.train_loader.resumable and self.valid_loader.resumable):
            raise InputError("several processes train with readers as `data_loader` gives them; these are others")
        if self.train_loader.batch_size < self.processes:
            raise InputError(
                f"a batch of {self.train_loader.batch_size} cannot be divided among {self.processes} processes; "
                "give --batch-size, the number of images in a step of all of them"
            )

    def __enter__(self):
        """Find the other processes; from here on only rank 0 prints, and each loads its shard."""
        with peer_failures(), contextlib.redirect_stderr(io.StringIO()):  # where paddle lists its flags
            on_cpu = paddle.get_device() == "cpu"
            os.environ["PADDLE_DISTRI_BACKEND"] = "gloo" if on_cpu else "nccl"
            dist.init_parallel_env()
            if on_cpu:
                _catch_terminate()
            self.store = paddle.base.core.create_or_get_global_tcp_store()
        if self.rank:
            self.stack.enter_context(contextlib.redirect_stdout(self.stack.enter_context(open(os.devnull, "w"))))
        self.stack.callback(self._set_shard, (0, 1))
        self._set_shard((self.rank, self.processes))
        return self

    def _set_shard(self, shard):
        self.train_loader.shard = self.valid_loader.shard = shard

    def close(self):
        self.stack.close()

    def on_train_begin(self, trainer):
        """Start where rank 0 does, once it is ready, with gradients that are averaged.

        Raises:
            RunError: The processes differ in network, settings, seed or images.
        """
        self.barrier()
        if self.resumed and self.rank:
            parts = self.model, trainer.optimizer, self.train_loader
            trainer.state = run_dir.load_latest(self.resumed, *parts) or trainer.state
        self.barrier()  # a process that reads much comes late, and gloo does not wait
        loaders, settings = (self.train_loader, self.valid_loader), trainer.config.as_settings()
        self.check_consistent(
            {
                "network": [[name, value.shape] for name, value in self.model.state_dict().items()],
                "settings": [settings[name] for name in SETTINGS],
                "augmentation": self.train_loader.augmentation,
                "seed": [trainer.state.seed, random.getstate()],  # by the latter the images are shuffled
                "images": [[loader.batch_size, loader.order, loader.labels] for loader in loaders],
                "step": trainer.state.step,
            }
        )
        with peer_failures():
            trainer.network = _averaging(self.model)
        trainer.predict = self.predict_all

    def on_loss(self, trainer):
        """Make `trainer.result` that of all processes; averaged, the gradients of its loss are those of the batch."""
        result = trainer.result
        num_samples, num_correct = result.num_samples, result.num_correct
        if self.rank >= len(self.train_loader.names(trainer.state.batch)):
            num_samples = num_correct = 0  # the shard has an image of another process, see BaseLoader
        totals = self.all_reduce([result.value * num_samples, num_samples, num_correct]).tolist()
        self._average_statistics(num_samples / totals[1])
        scaled = result.loss * (num_samples * self.processes / totals[1])
        trainer.result = StepResult(scaled, totals[0] / totals[1], int(totals[1]), int(totals[2]))

    def check_consistent(self, content):
        """Raise RunError, naming the entries, unless all processes have the same dictionary of JSON values."""
        texts = [json.dumps(value, sort_keys=True).encode("utf-8") for value in content.values()]
        mine, digests = paddle.to_tensor([list(hashlib.sha256(text).digest()) for text in texts]), []
        with peer_failures():
            dist.all_gather(digests, mine)
        differs = np.any([digest.numpy() != mine.numpy() for digest in digests], axis=(0, 2))
        if differs.any():
            names = ", ".join(name for name, different in zip(content, differs) if different)
            raise RunError(
                f"the {self.processes} processes do not have the same {names}; "
                "start all of them with one command, and give each machine the same images"
            )

    def barrier(self):
        """Barrier without gloo's 30 s timeout, since rank 0 may write for longer."""
        key, until = f"palm_cls {next(barriers)}", time.monotonic() + BARRIER_TIMEOUT
        with peer_failures():
            arrived = self._count(key, 1)
            while arrived < self.processes:
                if time.monotonic() > until:
                    raise TimeoutError(f"{arrived} arrived within {BARRIER_TIMEOUT} seconds")
                time.sleep(POLL_INTERVAL)
                arrived = self._count(key, 0)

    def _count(self, key, more):
        """Add to a counter of all processes and return it; a signal in between would be an error to Paddle."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
        try:
            return self.store.add(key, more)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _average_statistics(self, weight):
        """Average the running statistics of batch normalisation over the processes, this one's by `weight`."""
        state = self.model.state_dict()
        statistics = [value for name, value in state.items() if name.rpartition(".")[2] in STATISTICS]
        if statistics:
            weighted = np.concatenate([value.numpy().ravel().astype("float64") * weight for value in statistics])
            ends = np.cumsum([value.size for value in statistics])
            for value, mean in zip(statistics, np.split(self.all_reduce(weighted), ends[:-1])):
                value.set_value(mean.reshape(value.shape).astype("float32"))

    def predict_all(self):
        """Return the Predictions for all validation images; each process computes its shard."""
        shard = predict_all(self.model, self.valid_loader)
        return Predictions(self.valid_loader.order, self.all_gather(shard.labels), self.all_gather(shard.logits))

    def all_gather(self, rows):
        """Gather the rows of all validation images, in their order, from those of each shard."""
        numbers = np.arange(self.valid_loader.num_samples)
        mine = numbers[numbers % self.valid_loader.batch_size % self.processes == self.rank]
        whole = np.zeros((len(numbers), *rows.shape[1:]), rows.dtype)
        whole[mine] = rows[: len(mine)]  # without an image of another process
        return self.all_reduce(whole)

    def any_rank(self, flag):
        """Return whether the flag is set in any process."""
        return bool(self.all_reduce([float(flag)])[0])

    def all_reduce(self, numbers):
        """Return the sum of an array over all processes, in its own dtype."""
        tensor = paddle.to_tensor(np.asarray(numbers))
        with peer_failures():
            dist.all_reduce(tensor)
        return tensor.numpy()


@functools.cache  # never freed: the parameters keep a bare pointer to it
def _averaging(model):
    # Without this option the processes wait forever for a parameter that a step does not use.
    return paddle.DataParallel(model, find_unused_parameters=True)


@contextlib.contextmanager
def peer_failures():
    """Raise RunError if another process has ended or does not answer."""
    try:
        yield
    except Exception as error:  # gloo, NCCL and the store raise several types
        raise RunError(_failure_message(shorten(error))) from None


def _failure_message(reason):
    place = os.environ.get("PADDLE_LOG_DIR")
    logs = f"What it printed is in {place}{os.sep}workerlog.*{_place()}. " if place else ""
    return (
        f"another of the {environment.world_size()} processes has ended, or does not answer ({reason})\n"
        f"{logs}Checkpoints stay as they are: --resume goes on from the last."
    )


def _place():
    return " of its machine" if environment.world_size() > environment.local_world_size() else ""


@ctypes.CFUNCTYPE(None)
def _exit_with_message():
    message = _failure_message("noticed in the middle of a step")
    print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr, flush=True)
    os._exit(1)


def _catch_terminate():
    """Exit with a message if gloo misses another process in `backward`, where its C++ exception would abort."""
    with contextlib.suppress(OSError, AttributeError):  # another C++ library: the process aborts
        ctypes.CDLL("libstdc++.so.6")._ZSt13set_terminatePFvvE(_exit_with_message)  # std::set_terminate
