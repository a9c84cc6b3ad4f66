import os

import pytest

from palm_cls.core import environment

ZEN4 = "fma avx2 avx512f avx512dq avx512bw avx512vl avx512_vnni"


def cpuinfo(vendor, flags):
    """Two processors as Linux tells of them; the second one's flags must not matter."""
    entry = "processor\t: {}\nvendor_id\t: {}\nmodel name\t: some CPU: fast\nflags\t\t: fpu sse2 {}\nbugs\t\t: x\n"
    return "\n".join([entry.format(0, vendor, flags), entry.format(1, vendor, ZEN4)])


@pytest.mark.parametrize(
    ("vendor", "flags", "expected"),
    [
        ("AuthenticAMD", ZEN4, "7"),
        ("AuthenticAMD", "fma avx2", "5"),
        ("HygonGenuine", "fma avx2", "5"),
        ("AuthenticAMD", ZEN4.replace("avx512vl", ""), "5"),
        ("AuthenticAMD", "avx512f avx512dq avx512bw avx512vl", None),
        ("AuthenticAMD", "avx", None),
        ("GenuineIntel", ZEN4, None),
    ],
)
def test_the_path_that_mkl_is_told_to_take(vendor, flags, expected):
    assert environment.mkl_cpu_type(cpuinfo(vendor, flags)) == expected


def test_no_path_where_the_processor_is_not_told():
    assert environment.mkl_cpu_type("") is None
    assert environment.mkl_cpu_type("processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\n") is None  # ARM


def test_stock_asks_for_nothing(monkeypatch):
    monkeypatch.setenv("PALM_STOCK", "1")
    assert environment.paddle_environment() == {}
    assert not environment.tune_malloc()
    monkeypatch.setenv("PALM_STOCK", "0")
    assert environment.paddle_environment()["OMP_NUM_THREADS"] == str(environment.available_cores())


@pytest.mark.skipif(not environment.tune_malloc(), reason="needs the C library glibc")
def test_freed_memory_is_not_fetched_from_the_kernel_again():
    resource = pytest.importorskip("resource")

    def page_faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        bytearray(50_000_000)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    page_faults()
    assert page_faults() < 50_000_000 / os.sysconf("SC_PAGESIZE") / 10


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("150000 100000", 1), ("400000 100000", 4), ("junk", 8)]
)
def test_the_containers_quota_is_respected(tmp_path, monkeypatch, quota, cores):
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(environment, "Path", lambda path: tmp_path / os.path.basename(path))
    assert max(1, min(8, environment._cgroup_quota(8))) == cores


@pytest.fixture
def trainer(monkeypatch):
    """Put PADDLE_TRAINER_ID, PADDLE_TRAINERS_NUM and the endpoint into the environment, but for those that are None."""

    def set_environment(rank, number, endpoint):
        names = ("PADDLE_TRAINER_ID", "PADDLE_TRAINERS_NUM", "PADDLE_CURRENT_ENDPOINT")
        for name, value in zip(names, (rank, number, endpoint)):
            monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)

    return set_environment


@pytest.mark.parametrize(
    ("rank", "number", "endpoint", "stray"),
    [
        ("", None, None, ["PADDLE_TRAINER_ID"]),
        ("", "4", "10.0.0.1:80", ["PADDLE_TRAINERS_NUM", "PADDLE_TRAINER_ID"]),
        ("2", "4", None, ["PADDLE_TRAINERS_NUM", "PADDLE_TRAINER_ID"]),
        (None, "4", "10.0.0.1:80", ["PADDLE_TRAINERS_NUM"]),
        ("worker-2", "4", "10.0.0.1:80", ["PADDLE_TRAINERS_NUM", "PADDLE_TRAINER_ID"]),
        ("4", "4", "10.0.0.1:80", ["PADDLE_TRAINERS_NUM", "PADDLE_TRAINER_ID"]),
        ("0", "1", None, []),
        (None, None, None, []),
    ],
)
def test_variables_of_a_launcher_that_is_not_there(trainer, rank, number, endpoint, stray):
    trainer(rank, number, endpoint)
    assert (environment.world_size(), environment.rank(), environment.local_world_size()) == (1, 0, 1)
    assert list(environment.drop_stray_launch_variables()) == stray
    assert not {"PADDLE_TRAINER_ID", "PADDLE_TRAINERS_NUM"} & set(os.environ)  # which paddle reads, too


def test_variables_of_the_launcher(trainer):
    trainer("2", "4", "10.0.0.1:80")
    assert (environment.world_size(), environment.rank()) == (4, 2)
    assert environment.drop_stray_launch_variables() == {}
    assert os.environ["PADDLE_TRAINER_ID"] == "2"
