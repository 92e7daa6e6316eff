"""What a scene can hold: the classes of Mapillary Vistas and Cityscapes, their groups, and what the simulation adds.

A class is named by its publisher's words in lower case ("traffic sign (front)"), so that both sets share "car" and
"sky". What can be counted is a thing, what only covers is stuff; the division is the publishers' own.
"""

from collections.abc import Mapping
from types import MappingProxyType

_VISTAS = {
    "animal--bird": "bird",
    "animal--ground-animal": "ground animal",
    "construction--barrier--curb": "curb",
    "construction--barrier--fence": "fence",
    "construction--barrier--guard-rail": "guard rail",
    "construction--barrier--other-barrier": "barrier",
    "construction--barrier--wall": "wall",
    "construction--flat--bike-lane": "bike lane",
    "construction--flat--crosswalk-plain": "crosswalk - plain",
    "construction--flat--curb-cut": "curb cut",
    "construction--flat--parking": "parking",
    "construction--flat--pedestrian-area": "pedestrian area",
    "construction--flat--rail-track": "rail track",
    "construction--flat--road": "road",
    "construction--flat--service-lane": "service lane",
    "construction--flat--sidewalk": "sidewalk",
    "construction--structure--bridge": "bridge",
    "construction--structure--building": "building",
    "construction--structure--tunnel": "tunnel",
    "human--person": "person",
    "human--rider--bicyclist": "bicyclist",
    "human--rider--motorcyclist": "motorcyclist",
    "human--rider--other-rider": "other rider",
    "marking--crosswalk-zebra": "lane marking - crosswalk",
    "marking--general": "lane marking - general",
    "nature--mountain": "mountain",
    "nature--sand": "sand",
    "nature--sky": "sky",
    "nature--snow": "snow",
    "nature--terrain": "terrain",
    "nature--vegetation": "vegetation",
    "nature--water": "water",
    "object--banner": "banner",
    "object--bench": "bench",
    "object--bike-rack": "bike rack",
    "object--billboard": "billboard",
    "object--catch-basin": "catch basin",
    "object--cctv-camera": "cctv camera",
    "object--fire-hydrant": "fire hydrant",
    "object--junction-box": "junction box",
    "object--mailbox": "mailbox",
    "object--manhole": "manhole",
    "object--phone-booth": "phone booth",
    "object--pothole": "pothole",
    "object--street-light": "street light",
    "object--support--pole": "pole",
    "object--support--traffic-sign-frame": "traffic sign frame",
    "object--support--utility-pole": "utility pole",
    "object--traffic-light": "traffic light",
    "object--traffic-sign--back": "traffic sign (back)",
    "object--traffic-sign--front": "traffic sign (front)",
    "object--trash-can": "trash can",
    "object--vehicle--bicycle": "bicycle",
    "object--vehicle--boat": "boat",
    "object--vehicle--bus": "bus",
    "object--vehicle--car": "car",
    "object--vehicle--caravan": "caravan",
    "object--vehicle--motorcycle": "motorcycle",
    "object--vehicle--on-rails": "on rails",
    "object--vehicle--other-vehicle": "other vehicle",
    "object--vehicle--trailer": "trailer",
    "object--vehicle--truck": "truck",
    "object--vehicle--wheeled-slow": "wheeled slow",
    "void--car-mount": "car mount",
    "void--ego-vehicle": "ego vehicle",
}

# Longest prefix first.
_GROUP_OF_PREFIX = {
    "construction--barrier": "barriers",
    "construction--flat": "ground",
    "construction--structure": "buildings",
    "object--support": "poles, signs and lights",
    "object--traffic": "poles, signs and lights",
    "object--street-light": "poles, signs and lights",
    "object--vehicle": "vehicles",
    "animal": "animals",
    "human": "people",
    "marking": "markings",
    "nature": "nature",
    "object": "street furniture",
    "void": "the camera's own car",
}

VISTAS: tuple[str, ...] = tuple(_VISTAS.values())
"""The 65 classes of Mapillary Vistas 1.2, in its order, without "unlabeled" (Neuhold et al. 2017, ICCV)."""

CITYSCAPES: tuple[str, ...] = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
"""The 19 evaluated classes of Cityscapes, in the order of their training ids (Cordts et al. 2016, CVPR)."""

SIMULATED: Mapping[str, str] = MappingProxyType(
    {
        "sky": "sky",
        "building": "building",
        "roof": "roof",
        "window": "window",
        "door": "door",
        "shop": "shop",
        "shutter": "shutter",
        "boarded": "boarded window",
        "vegetation": "vegetation",
        "pavement": "sidewalk",
        "road": "road",
        "marking": "lane marking - general",
        "car": "car",
        "litter": "litter",
        "lamp": "street light",
    }
)
"""Class of the simulated street -> its name here: the Vistas class where there is one, else a name of its own."""

_STUFF = frozenset(
    {
        *("curb", "fence", "guard rail", "barrier", "wall", "bike lane", "curb cut", "parking", "pedestrian area"),
        *("rail track", "road", "service lane", "sidewalk", "bridge", "building", "tunnel", "lane marking - general"),
        *("mountain", "sand", "sky", "snow", "terrain", "vegetation", "water", "pothole", "on rails", "car mount"),
        *("ego vehicle", "roof"),
    }
)
# Cityscapes has no instances of these, while Vistas counts them: they keep the publisher's own division.
_CITYSCAPES_STUFF = frozenset(CITYSCAPES[:11])


def _group(published: str) -> str:
    return next(group for prefix, group in _GROUP_OF_PREFIX.items() if published.startswith(prefix))


_GROUP = {
    **{name: _group(published) for published, name in _VISTAS.items()},
    **dict.fromkeys(("roof", "window", "door", "shop", "shutter", "boarded window"), "buildings"),
    "litter": "street furniture",
    "rider": "people",
    "train": "vehicles",
    "traffic sign": "poles, signs and lights",
}

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {group: tuple(name for name in _GROUP if _GROUP[name] == group) for group in dict.fromkeys(_GROUP.values())}
)
"""Classes that are alike and tend to come together, by their meaning: group -> classes; each class is in one."""


def class_name(label: str) -> str:
    """The class of a publisher's `label`: "object--vehicle--car", "Car" and "car" are all "car".

    A label of no known set is kept in lower case: a checkpoint may know other classes.
    """
    text = label.strip()
    return _VISTAS.get(text, text.lower())


def is_thing(name: str, *, classes: tuple[str, ...] = VISTAS) -> bool:
    """Whether single objects of the class can be counted; a class of no known set counts as a thing.

    `classes` is the set the class is read in: Cityscapes has no instances of poles and lights, Vistas has.
    """
    return name not in (_CITYSCAPES_STUFF if classes == CITYSCAPES else _STUFF)
