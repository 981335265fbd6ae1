"""Reacher: arms of three and four links."""

from __future__ import annotations

import functools
import xml.etree.ElementTree as ET

import numpy as np
from dm_control.rl.control import Environment
from dm_control.suite import reacher

_LAST_LENGTH, _LAST_RADIUS = 0.10, 0.01  # of the last capsule, in m
_DISTANCE = {3: 0.09, 4: 0.06}  # of joints in m, by the number of links
_TURN = 80  # either way in degrees, of all joints but the first, which turns freely
_EASY, _HARD = 0.05, 0.015  # radius of the target in m


def _model(links: int) -> tuple[bytes, dict[str, bytes]]:
    """The suite's model with another arm."""
    xml, assets = reacher.get_model_and_assets()
    root = ET.fromstring(xml)
    world, actuators = root.find("worldbody"), root.find("actuator")
    assert world is not None
    assert actuators is not None
    old = world.find("body[@name='arm']")
    assert old is not None
    index = list(world).index(old)
    world.remove(old)
    actuators.clear()
    distance, parent = _DISTANCE[links], None
    for i in range(links):
        position = f"{distance} 0 0" if i else "0 0 .01"
        body = ET.Element("body", name=f"link{i}", pos=position)
        length = distance if i + 1 < links else _LAST_LENGTH
        capsule = {"type": "capsule", "fromto": f"0 0 0 {length} 0 0", "size": str(_LAST_RADIUS)}
        ET.SubElement(body, "geom", {"name": f"link{i}", "material": "self"} | capsule)
        limits = {"limited": "true", "range": f"{-_TURN} {_TURN}"} if i else {}
        ET.SubElement(body, "joint", {"name": f"joint{i}"} | limits)
        ET.SubElement(actuators, "motor", name=f"joint{i}", joint=f"joint{i}")
        if parent is None:
            world.insert(index, body)
        else:
            parent.append(body)
        parent = body
    assert parent is not None
    finger = ET.SubElement(parent, "body", name="finger", pos=f"{distance} 0 0")
    ET.SubElement(finger, "geom", name="finger", type="sphere", size=".01", material="effector")
    return ET.tostring(root), assets


def _reach(links: int, target: float, random: np.random.RandomState) -> Environment:
    physics = reacher.Physics.from_xml_string(*_model(links))
    return Environment(physics, reacher.Reacher(target_size=target, random=random), time_limit=20)


TASKS = {
    "three_easy": functools.partial(_reach, 3, _EASY),
    "three_hard": functools.partial(_reach, 3, _HARD),
    "four_easy": functools.partial(_reach, 4, _EASY),
    "four_hard": functools.partial(_reach, 4, _HARD),
}
