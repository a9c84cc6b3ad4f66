"""Several processes that train one network together, as `python -m paddle.distributed.launch` starts them.

Data parallel: all have the same network, settings and seed, and so the same order of the images; each takes its part of
every batch, and the gradients are averaged over the whole batch. A step is therefore what it is in one process, but for
dropout, whose masks each process draws on its own, and batch normalisation, which sees one process's part only.

Process 0 alone prints, and writes to the directory of the run. One process alone never comes here.
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
from palm_cls.core.errors import InputError, RunError, excerpt
from palm_cls.eval.evaluate import Predictions, predict_all
from palm_cls.training.callbacks import Callback, StepResult

import paddle.distributed as dist

SETTINGS = ("epochs", "learning_rate", "momentum", "weight_decay", "save_every")
STATISTICS = ("_mean", "_variance")  # how paddle names the running statistics of batch normalisation
BARRIER_TIMEOUT, POLL_INTERVAL = 1800, 0.02  # seconds to wait for another process, and from one look for it to the next
barriers = itertools.count()


class ProcessGroup(Callback):
    """The processes that train one network together, seen from one of them; all call the same methods in one order.

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
        self.rank, self.processes = environment.rank(), environment.processes()
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
                _catch_what_is_fatal()
            self.store = paddle.base.core.create_or_get_global_tcp_store()
        if self.rank:
            self.stack.enter_context(contextlib.redirect_stdout(self.stack.enter_context(open(os.devnull, "w"))))
        self.stack.callback(self._set_shard, (0, 1))
        self._set_shard((self.rank, self.processes))
        return self

    def _set_shard(self, shard):
        self.train_loader.part = self.valid_loader.part = shard

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
            trainer.state = run_dir.take_up_last(self.resumed, *parts) or trainer.state
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
        """Raise RunError, naming what is not, unless all processes have the same in all entries of a dictionary."""
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
        """Wait until all processes have come here, however long one of them writes: gloo would wait for 30 seconds."""
        key, until = f"palm_cls {next(barriers)}", time.monotonic() + BARRIER_TIMEOUT
        with peer_failures():
            come = self._count(key, 1)
            while come < self.processes:
                if time.monotonic() > until:
                    raise TimeoutError(f"{come} came within {BARRIER_TIMEOUT} seconds")
                time.sleep(POLL_INTERVAL)
                come = self._count(key, 0)

    def _count(self, key, more):
        """Add to a number that all processes share, and return it. To paddle a signal in between would be an error."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
        try:
            return self.store.add(key, more)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _average_statistics(self, weight):
        """Make the running statistics of batch normalisation those of all processes, this one's by `weight`."""
        state = self.model.state_dict()
        statistics = [value for name, value in state.items() if name.rpartition(".")[2] in STATISTICS]
        if statistics:
            weighted = np.concatenate([value.numpy().ravel().astype("float64") * weight for value in statistics])
            ends = np.cumsum([value.size for value in statistics])
            for value, mean in zip(statistics, np.split(self.all_reduce(weighted), ends[:-1])):
                value.set_value(mean.reshape(value.shape).astype("float32"))

    def predict_all(self):
        """The Predictions for all validation images, of which each process computes those for its part."""
        _, labels, logits = predict_all(self.model, self.valid_loader)
        return Predictions(self.valid_loader.order, self.all_gather(labels), self.all_gather(logits))

    def all_gather(self, rows):
        """The rows of all validation images, in their order, from those for each process's part."""
        numbers = np.arange(self.valid_loader.images)
        mine = numbers[numbers % self.valid_loader.batch_size % self.processes == self.rank]
        whole = np.zeros((len(numbers), *rows.shape[1:]), rows.dtype)
        whole[mine] = rows[: len(mine)]  # without one that is another's
        return self.all_reduce(whole)

    def any_rank(self, flag):
        """Whether any of the processes has this wish."""
        return bool(self.all_reduce([float(flag)])[0])

    def all_reduce(self, numbers):
        """The sum of an array over all processes, in its own type."""
        tensor = paddle.to_tensor(np.asarray(numbers))
        with peer_failures():
            dist.all_reduce(tensor)
        return tensor.numpy()


@functools.cache  # for good: the parameters keep a bare pointer to what averages their gradients
def _averaging(model):
    # Parameters without a part in a step are looked for, or the others would wait for them.
    return paddle.DataParallel(model, find_unused_parameters=True)


@contextlib.contextmanager
def peer_failures():
    """What needs the other processes: where one of them has ended, or does not answer, RunError says so."""
    try:
        yield
    except Exception as error:  # gloo's, NCCL's and the store's are of several kinds
        raise RunError(_missing(excerpt(error))) from None


def _missing(reason):
    place = os.environ.get("PADDLE_LOG_DIR")
    logs = f"What it printed is in {place}{os.sep}workerlog.*{_there()}. " if place else ""
    return (
        f"another of the {environment.processes()} processes has ended, or does not answer ({reason})\n"
        f"{logs}Checkpoints stay as they are: --resume goes on from the last."
    )


def _there():
    return " of its machine" if environment.processes() > environment.processes_here() else ""


@ctypes.CFUNCTYPE(None)
def _end_plainly():
    told = _missing("noticed in the middle of a step")
    print(f"{os.path.basename(sys.argv[0])}: {told}", file=sys.stderr, flush=True)
    os._exit(1)


def _catch_what_is_fatal():
    """End with a message, too, where gloo misses another process while gradients are computed.

    Its exception does not come out of paddle's `backward` then, but has C++ abort the process.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C++ library: the process is aborted
        ctypes.CDLL("libstdc++.so.6")._ZSt13set_terminatePFvvE(_end_plainly)  # std::set_terminate
