import os
import random
import subprocess
import sys

import numpy as np
import paddle
import pytest
from conftest import PROJECT

from palm_cls import runtime
from palm_cls.messages import InputError


def fresh_python(code, **env):
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), **env}
    environment = {name: value for name, value in environment.items() if value is not None}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)


def test_all_cores_are_used_unless_the_user_said_otherwise():
    code = "import palm_cls.runtime as r; print(r.threads(), r.available_cores())"
    threads, cores = fresh_python(code, OMP_NUM_THREADS=None).stdout.split()
    assert threads == cores
    assert fresh_python(code, OMP_NUM_THREADS="1").stdout.split()[0] == "1"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_affinity_is_respected():
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
    code += "import palm_cls.runtime as r; print(r.threads())"
    assert fresh_python(code, OMP_NUM_THREADS=None).stdout.strip() == "1"


def test_importing_the_package_is_silent_and_imports_no_paddle():
    code = "import palm_cls, sys; print('paddle' in sys.modules, 'cv2' in sys.modules, 'numpy' in sys.modules)"
    done = fresh_python(code)
    assert (done.stdout.split(), done.stderr) == (["False"] * 3, "")
    done = fresh_python(
        "from palm_cls import LeNet; import paddle; LeNet()(paddle.zeros([1, 3, 224, 224])).sum().backward()"
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_every_public_name_is_there_and_documented():
    import palm_cls

    for name in palm_cls.__all__:
        assert getattr(palm_cls, name).__doc__, name
        assert name in dir(palm_cls)
    with pytest.raises(AttributeError, match="no attribute 'LetNet'"):
        palm_cls.LetNet  # noqa: B018


def test_devices():
    assert runtime.choose_device("cpu") == "cpu"
    for wrong in ("tpu", "cpu:1", "gpu:x", "", "gpu:99"):
        with pytest.raises(InputError, match="is none of cpu, gpu|is not there"):
            runtime.choose_device(wrong)


@pytest.mark.skipif(
    not paddle.is_compiled_with_cuda() or paddle.device.cuda.device_count() > 0,
    reason="needs the GPU build without a GPU",
)
def test_the_gpu_build_without_a_gpu_says_so_in_one_line(capsys):
    assert runtime.choose_device() == "cpu"
    assert capsys.readouterr().err.count("\n") == 1


def test_a_seed_settles_all_three_generators():
    def draw():
        runtime.set_seed(7)
        return random.random(), np.random.rand(), paddle.rand([1]).item()

    assert draw() == draw()


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("150000 100000", 1), ("400000 100000", 4), ("junk", 8)]
)
def test_the_containers_quota_is_respected(tmp_path, monkeypatch, quota, cores):
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(runtime, "Path", lambda path: tmp_path / os.path.basename(path))
    assert max(1, min(8, runtime._cgroup_quota(8))) == cores
