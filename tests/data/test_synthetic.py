import cv2
import numpy as np
import pytest
from helpers.files import tree

from palm_cls.data.demo_set import write_demo_set
from palm_cls.data.image_files import image_names
from palm_cls.data.images import read_image
from palm_cls.data.labels import read_labels
from palm_cls.data.synthetic import draw_fundus


def test_layout_labels_and_proportions(small_demo):
    names = image_names(small_demo / "PALM-Training400" / "PALM-Training400")
    letters = [name[0] for name in names]
    assert len(names) == 20
    assert 8 <= letters.count("P") <= 13
    assert letters.count("H") >= 1
    assert names[0] == "H0001.jpg"
    labels = read_labels(small_demo / "PALM-Validation-GT" / "PM_Label_and_Fovea_Location.xlsx")
    assert [label.name for label in labels] == [f"V{k:04d}.jpg" for k in range(1, 11)]
    assert {label.label for label in labels} == {0, 1}
    for label in labels:
        img = read_image(small_demo / "PALM-Validation400" / label.name)
        assert img.shape == (512, 512, 3)
        assert 0 < float(label.fovea_x) < 512
        assert 0 < float(label.fovea_y) < 512
        assert img[:8, :8].mean() < 10  # black surround
        assert img[:, :, 2].mean() > img[:, :, 1].mean() > img[:, :, 0].mean()  # red above green above blue


def test_the_same_set_every_time_and_a_larger_one_begins_with_it(small_demo, tmp_path):
    write_demo_set(tmp_path / "again", train=25, valid=12)

    def contents(root):
        return {name: content for name, (content, _) in tree(root).items() if name.endswith(".jpg")}

    small, large = contents(small_demo), contents(tmp_path / "again")
    assert len(large) == 37
    assert small.items() <= large.items()


def test_it_does_not_write_over_anything(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(FileExistsError):
        write_demo_set(tmp_path)


@pytest.mark.parametrize("kind", "HNP")
def test_one_eye(kind):
    image, fovea = draw_fundus(kind, np.random.default_rng(1), size=128)
    assert (image.shape, image.dtype) == ((128, 128, 3), np.uint8)
    x, y = (int(round(value)) for value in fovea)
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (0, 0), 2)
    if kind == "N":  # the macula is darker than the retina around it
        around = grey[y - 25 : y + 26, x - 25 : x + 26]
        assert grey[y, x] < np.median(around[around > 20])
