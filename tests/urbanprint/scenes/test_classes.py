"""The vocabulary of scenes."""

import pytest

from urbanprint.scenes.classes import CITYSCAPES, GROUPS, SIMULATED, VISTAS, class_name, is_thing
from urbanprint.simulation.canvas import CLASSES


def test_the_sets_have_the_published_number_of_classes_each_once() -> None:
    assert (len(VISTAS), len(set(VISTAS))) == (65, 65)
    assert (len(CITYSCAPES), len(set(CITYSCAPES))) == (19, 19)


def test_the_publishers_count_instances_of_37_and_8_classes() -> None:
    # Mapillary Vistas 1.2 and Cityscapes, as published.
    assert sum(is_thing(name) for name in VISTAS) == 37
    things = [name for name in CITYSCAPES if is_thing(name, classes=CITYSCAPES)]
    assert things == ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("object--vehicle--car", "car"),
        ("Car", "car"),
        (" Traffic Sign (Front) ", "traffic sign (front)"),
        ("marking--crosswalk-zebra", "lane marking - crosswalk"),
        ("Swimming pool", "swimming pool"),
    ],
)
def test_a_class_has_one_name_whatever_its_publisher_calls_it(label: str, name: str) -> None:
    assert class_name(label) == name


def test_every_class_is_in_exactly_one_group() -> None:
    grouped = [name for members in GROUPS.values() for name in members]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {*VISTAS, *CITYSCAPES, *SIMULATED.values()}


def test_every_class_of_the_simulated_street_has_a_name_of_its_own() -> None:
    assert tuple(SIMULATED) == CLASSES
    assert len(set(SIMULATED.values())) == len(CLASSES)
    assert set(SIMULATED.values()) - set(VISTAS) == {
        *("roof", "window", "door", "shop", "shutter", "boarded window", "litter")
    }
