"""Names of classes: which are possible, their order, and the labels that stand for them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palm_cls.core.errors import InputError
from palm_cls.data.classes import MAX_CLASSES, check_classes, label_number, order_classes

NAMES = st.lists(st.text("aÄé正常 07", min_size=1, max_size=3).map(str.strip).filter(bool), min_size=2, max_size=8)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["A"], "only the class A; expected two or more"),
        ([], "no class; expected two or more"),
        (["Normal", "normal"], "Normal and normal differ in nothing but case"),
        (["A", "B", "A"], "the class A is there twice"),
        (["é", "e\u0301"], "the class é is there twice"),
        (["A", ""], "'' cannot be the name of a class"),
        (["A", "Error"], "'Error' cannot be the name of a class"),
        (["A", "x" * 5000], "cannot be the name of a class"),
        (
            [f"patient {number}" for number in range(MAX_CLASSES + 1)],
            "101 classes (patient 0, patient 1, patient 2, ..",
        ),
    ],
)
def test_names_that_are_refused(names, told):
    with pytest.raises(InputError) as refused:
        check_classes(names, "mydata")
    assert str(refused.value).startswith("mydata: ")
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


def test_the_order_of_classes():
    assert order_classes(["normal", "10", "9", "AMD", "正常"]) == ["9", "10", "AMD", "normal", "正常"]
    assert order_classes(["normal", "glaucoma"]) == ["glaucoma", "normal"]
    assert order_classes(["normal", "glaucoma"], positive="glaucoma") == ["normal", "glaucoma"]
    assert order_classes(["normal", "glaucoma"], positive="normal") == ["glaucoma", "normal"]
    with pytest.raises(
        InputError, match="--positive Normal: none of the classes glaucoma, normal; did you mean normal"
    ):
        order_classes(["normal", "glaucoma"], positive="Normal")
    with pytest.raises(InputError, match="--positive is for two classes, and there are 3; leave it out"):
        order_classes(["a", "b", "c"], positive="a")


@given(NAMES)
def test_each_label_stands_for_one_class(names):
    try:
        classes = check_classes(names, "x")
    except InputError:
        return
    assert [label_number(name, classes) for name in classes] == list(range(len(classes)))
    assert check_classes(classes, "x") == classes
    assert order_classes(order_classes(classes)) == order_classes(classes)


@pytest.mark.parametrize(
    ("label", "classes", "number"),
    [
        ("1", ["N", "P"], 1),
        ("2", ["N", "P"], None),
        ("2", ["1", "2", "4"], 1),
        ("0", ["1", "2", "4"], None),  # not the first class
        ("3", ["1", "2", "4"], None),
        ("1", ["0", "mild", "2"], None),
        ("n", ["N", "P"], None),
        ("٠", ["N", "P"], None),
        ("9" * 5000, ["N", "P"], None),
    ],
)
def test_a_number_stands_for_a_class_unless_classes_have_numbers_as_names(label, classes, number):
    assert label_number(label, classes) == number
