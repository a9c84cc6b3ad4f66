"""The package as its users see it: what `import palm_cls` gives them."""

import pytest
from conftest import PROJECT
from test_runtime import fresh_python

import palm_cls


def test_importing_the_package_is_silent_and_imports_no_paddle():
    code = "import palm_cls, sys; print('paddle' in sys.modules, 'cv2' in sys.modules, 'numpy' in sys.modules)"
    done = fresh_python(code)
    assert (done.stdout.split(), done.stderr) == (["False"] * 3, "")
    done = fresh_python(
        "from palm_cls import LeNet; import paddle; LeNet()(paddle.zeros([1, 3, 224, 224])).sum().backward()"
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_every_public_name_is_there_and_documented():
    for name in palm_cls.__all__:
        assert getattr(palm_cls, name).__doc__, name
        assert name in dir(palm_cls)
    with pytest.raises(AttributeError, match="no attribute 'LetNet'"):
        palm_cls.LetNet  # noqa: B018


def test_no_module_takes_the_place_of_a_public_name():
    modules = {path.stem for path in (PROJECT / "palm_cls").glob("*.py")}
    assert not modules & set(palm_cls.__all__)
