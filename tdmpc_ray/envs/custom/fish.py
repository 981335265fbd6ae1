"""Fish: swimming to a target between obstacles."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

import numpy as np
from dm_control.rl.control import Environment
from dm_control.suite import fish
from numpy.typing import NDArray

from tdmpc_ray.envs.custom.common import Physics

_OFFSET = 0.15  # of the four boxes from the middle along x and y, in m
_BOXES = np.array(list(itertools.product((-_OFFSET, _OFFSET), repeat=2)))


def _model() -> tuple[bytes, dict[str, bytes]]:
    """The suite's model with four boxes, which nothing collides with."""
    xml, assets = fish.get_model_and_assets()
    root = ET.fromstring(xml)
    world = root.find("worldbody")
    assert world is not None
    for i, (x, y) in enumerate(_BOXES):
        box = {"type": "box", "size": ".05 .05 .1", "pos": f"{x} {y} .1", "material": "self"}
        ET.SubElement(world, "geom", {"name": f"obstacle{i}"} | box)
    return ET.tostring(root), assets


def _near_box(position: NDArray[np.float64], distance: float) -> bool:
    """Whether x or y is close to a box's, as published: cross-shaped zones."""
    return bool((np.abs(position[:2] - _BOXES).min(1) < distance).any())


class _Obstacles(fish.Swim):
    def initialize_episode(self, physics: Physics) -> None:
        """Draw starts until the target is clear of the boxes."""
        while True:
            super().initialize_episode(physics)
            if not _near_box(physics.named.model.geom_pos["target"], 0.08):
                return

    def get_reward(self, physics: Physics) -> float:
        """As in swim, and nothing near a box."""
        if _near_box(physics.named.data.geom_xpos["torso"], 0.06):
            return 0.0
        return float(super().get_reward(physics))


def _obstacles(random: np.random.RandomState) -> Environment:
    physics = fish.Physics.from_xml_string(*_model())
    return Environment(physics, _Obstacles(random=random), time_limit=40, control_timestep=0.04)


TASKS = {"obstacles": _obstacles}
