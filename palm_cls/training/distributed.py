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
from palm_cls.data.base_loader import BaseLoader
from palm_cls.eval.evaluate import Predictions, predict_all

import paddle.distributed as dist

SETTINGS = ("epochs", "learning_rate", "momentum", "weight_decay", "save_every")
STATISTICS = ("_mean", "_variance")  # how paddle names the running statistics of batch normalisation
PATIENCE, PAUSE = 1800, 0.02  # seconds to wait for another process, and from one look for it to the next
meetings = itertools.count()


@contextlib.contextmanager
def together(model, train_loader, valid_loader):
    """A context in which this process and the others train `model`: their Team, once all have come.

    Raises InputError for readers that cannot be divided, and for a batch of fewer images than there are processes.
    """
    if not dist.is_available():
        raise InputError("this paddle cannot have several processes train together; start one, or do it on Linux")
    if not all(isinstance(loader, BaseLoader) for loader in (train_loader, valid_loader)):
        raise InputError("several processes train with readers as `data_loader` gives them; these are others")
    if train_loader.batch_size < environment.processes():
        raise InputError(
            f"a batch of {train_loader.batch_size} cannot be divided among {environment.processes()} processes; "
            "give --batch-size, the number of images in a step of all of them"
        )
    with _others(), contextlib.redirect_stderr(io.StringIO()):  # where paddle lists its flags
        on_cpu = paddle.get_device() == "cpu"
        os.environ["PADDLE_DISTRI_BACKEND"] = "gloo" if on_cpu else "nccl"
        dist.init_parallel_env()
        if on_cpu:
            _catch_what_is_fatal()
        team = Team(model, train_loader, valid_loader)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere if team.rank else sys.stdout):
        train_loader.shard = valid_loader.shard = team.rank, team.processes
        try:
            yield team
        finally:
            train_loader.shard = valid_loader.shard = 0, 1


class Team:
    """This process and the others: what they do together, all in the same order.

    network: what computes in training, once it has begun, with gradients that are averaged over the processes. Where a
    process does not come any more, all methods raise RunError.
    """

    def __init__(self, model, train_loader, valid_loader):
        self.rank, self.processes = environment.rank(), environment.processes()
        self.store = paddle.base.core.create_or_get_global_tcp_store()
        self.model, self.train_loader, self.valid_loader = model, train_loader, valid_loader

    def begin(self, progress, optimizer, settings, directory=None):
        """Have all processes begin where process 0 does, once it is ready; returns their Progress.

        directory: of the run that process 0 has taken up again; the others do so now. Raises RunError where not all of
        them have the same network, settings, and images in the same order.
        """
        self.meet()
        if directory and self.rank:
            progress = run_dir.take_up_last(directory, self.model, optimizer, self.train_loader) or progress
        self.meet()  # who has had much to read comes late, and gloo does not wait
        loaders = self.train_loader, self.valid_loader
        self._require_same(
            {
                "network": [[name, value.shape] for name, value in self.model.state_dict().items()],
                "settings": [settings[name] for name in SETTINGS],
                "augmentation": getattr(self.train_loader, "augmentation", None),
                "seed": [progress.seed, random.getstate()],  # by the latter the images are shuffled
                "images": [[loader.batch_size, loader.order, loader.labels] for loader in loaders],
                "step": progress.step,
            }
        )
        with _others():
            self.network = _averaging(self.model)
        return progress

    def _require_same(self, content):
        """Raise RunError, naming what is not, unless all processes have the same in all entries of a dictionary."""
        texts = [json.dumps(value, sort_keys=True).encode("utf-8") for value in content.values()]
        mine, digests = paddle.to_tensor([list(hashlib.sha256(text).digest()) for text in texts]), []
        with _others():
            dist.all_gather(digests, mine)
        differs = np.any([digest.numpy() != mine.numpy() for digest in digests], axis=(0, 2))
        if differs.any():
            names = ", ".join(name for name, different in zip(content, differs) if different)
            raise RunError(
                f"the {self.processes} processes do not have the same {names}; "
                "start all of them with one command, and give each machine the same images"
            )

    def meet(self):
        """Wait until all processes have come here, however long one of them writes: gloo would wait for 30 seconds."""
        key, until = f"palm_cls {next(meetings)}", time.monotonic() + PATIENCE
        with _others():
            come = self._count(key, 1)
            while come < self.processes:
                if time.monotonic() > until:
                    raise TimeoutError(f"{come} came within {PATIENCE} seconds")
                time.sleep(PAUSE)
                come = self._count(key, 0)

    def _count(self, key, more):
        """Add to a number that all processes share, and return it. To paddle a signal in between would be an error."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
        try:
            return self.store.add(key, more)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def step(self, loss, images, hits, batch):
        """What a step is over all processes: (loss to go backward from, mean loss, images, hits).

        loss: float32 [], the mean over this process's part of batch number `batch`; images, hits: their number, and of
        those that are right. Gradients of the first loss, averaged over the processes, are those of the mean loss.
        """
        if self.rank >= len(self.train_loader.names(batch)):
            images = hits = 0  # the part has an image that is another's, see BaseLoader
        total, all_images, all_hits = self._sum([loss.item() * images, images, hits]).tolist()
        self._average_statistics(images / all_images)
        return loss * (images * self.processes / all_images), total / all_images, int(all_images), int(all_hits)

    def _average_statistics(self, weight):
        """Make the running statistics of batch normalisation those of all processes, this one's by `weight`."""
        state = self.model.state_dict()
        statistics = [value for name, value in state.items() if name.rpartition(".")[2] in STATISTICS]
        if statistics:
            weighted = np.concatenate([value.numpy().ravel().astype("float64") * weight for value in statistics])
            ends = np.cumsum([value.size for value in statistics])
            for value, mean in zip(statistics, np.split(self._sum(weighted), ends[:-1])):
                value.set_value(mean.reshape(value.shape).astype("float32"))

    def predict_all(self):
        """The Predictions for all validation images, of which each process computes those for its part."""
        _, labels, logits = predict_all(self.model, self.valid_loader)
        return Predictions(self.valid_loader.order, self._gathered(labels), self._gathered(logits))

    def _gathered(self, rows):
        """The rows of all validation images, in their order, from those for each process's part."""
        numbers = np.arange(self.valid_loader.num_samples)
        mine = numbers[numbers % self.valid_loader.batch_size % self.processes == self.rank]
        whole = np.zeros((len(numbers), *rows.shape[1:]), rows.dtype)
        whole[mine] = rows[: len(mine)]  # without one that is another's
        return self._sum(whole)

    def any(self, wish):
        """Whether any of the processes has this wish."""
        return bool(self._sum([float(wish)])[0])

    def _sum(self, numbers):
        """The sum of an array over all processes, in its own type."""
        tensor = paddle.to_tensor(np.asarray(numbers))
        with _others():
            dist.all_reduce(tensor)
        return tensor.numpy()


@functools.cache  # for good: the parameters keep a bare pointer to what averages their gradients
def _averaging(model):
    # Parameters without a part in a step are looked for, or the others would wait for them.
    return paddle.DataParallel(model, find_unused_parameters=True)


@contextlib.contextmanager
def _others():
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
