"""What an observation has to be for its space, and how its numbers come out."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space

from tdmpc_ray.envs.contract import Contract, EnvFaultError
from tdmpc_ray.envs.layout import LayoutError, UnsupportedSpacesError, read_layout
from tdmpc_ray.errors import UserError

THREE = Box(-9, 9, (3,))


@pytest.mark.parametrize(
    ("space", "value", "told"),
    [
        (Discrete(4), -1, "holds -1, declared are whole numbers from 0 to 3"),
        (Discrete(4), 4, "holds 4, declared are whole numbers from 0 to 3"),
        (Discrete(4, start=-2), 2, "holds 2, declared are whole numbers from -2 to 1"),
        (Discrete(4), 1.5, "holds 1.5, declared"),
        (Discrete(4), np.nan, "holds nan, declared"),
        (Discrete(4), [1, 2], r"has shape \(2,\), declared is \(\)"),
        (MultiDiscrete([3, 5]), [2, 5], "holds 5, declared are whole numbers from 0 to 4"),
        (MultiDiscrete([3, 5]), [-1, 4], "holds -1, declared are whole numbers from 0 to 2"),
        (MultiDiscrete([3, 5], start=[1, 2]), [1, 1], "holds 1, declared are whole numbers from 2 to 6"),
        (MultiDiscrete([3, 5]), 2, r"has shape \(\), declared is \(2,\)"),
        (MultiBinary(3), [0, 1, 2], "holds 2, declared are whole numbers from 0 to 1"),
        (MultiBinary(3), [0, 1], r"has shape \(2,\), declared is \(3,\)"),
        (Discrete(4), "1", "is no array of numbers but str"),
        (THREE, np.array(["1", "2", "3"]), "is no array of numbers but an array of <U1"),
        (THREE, np.array([1, 2, 3j]), "is no array of numbers but an array of complex128"),
        (THREE, [1, 2, None], "is no array of numbers but an array of object"),
        (THREE, np.zeros(3, "datetime64[s]"), r"is no array of numbers but an array of datetime64\[s\]"),
        (THREE, [[1], [2, 3]], "is no array of numbers but list"),
        (Box(0, 255, (20, 20), np.uint8), [[1], [2, 3]], "is no array of numbers but list"),
    ],
)
def test_what_a_space_does_not_have_is_refused_by_name(space: Space, value: Any, told: str) -> None:
    with pytest.raises(LayoutError, match=f"^ {told}"):
        read_layout("odd", space)(value)
    with pytest.raises(UserError, match=rf"^task 'odd', reset: the observation\['part'\] {told}") as caught:
        Contract("odd", read_layout("odd", Dict(part=space))).reset({"part": value})
    assert not isinstance(caught.value, EnvFaultError)


@pytest.mark.parametrize(
    ("space", "value", "numbers"),
    [
        (Discrete(4, start=-2), np.int8(1), [0, 0, 0, 1]),
        (Discrete(3), np.array([0]), [1, 0, 0]),
        (Discrete(2), True, [0, 1]),
        (Discrete(3), 2.0, [0, 0, 1]),
        (MultiDiscrete([3, 2], start=[1, 2]), np.array([3, 2], np.uint8), [0, 0, 1, 1, 0]),
        (MultiBinary(3), [0.0, 1.0, 1.0], [0, 1, 1]),
        (MultiBinary((2, 1)), np.array([[True], [False]]), [1, 0]),
        (THREE, [True, 2, -3.5], [1, 2, -3.5]),
    ],
)
def test_what_a_space_has_comes_out_as_gymnasium_flattens_it(
    space: Space, value: Any, numbers: list[float]
) -> None:
    out = read_layout("odd", space)(value)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, np.array(numbers, np.float32))


def test_an_observation_is_no_view_of_the_environment_s_own_array() -> None:
    own = np.ones(3, np.float32)
    out = read_layout("odd", THREE)(own)
    own[:] = 7
    np.testing.assert_array_equal(out, np.ones(3))


def stepped(reward: Any) -> float:
    contract = Contract("odd", read_layout("odd", THREE))
    contract.step(np.zeros(3), 0.0, False)
    return contract.step(np.zeros(3), reward, False)[1]


@pytest.mark.parametrize(
    ("reward", "told"),
    [
        (1e39, r"the reward is 1e\+39, more than float32 can hold"),
        (-(10**40), r"the reward is -1e\+40, more than float32 can hold"),
        (np.array([1e39]), r"the reward is 1e\+39, more than float32 can hold"),
        (np.float32("-inf"), "the reward is -inf"),
        (np.float16("nan"), "the reward is nan"),
        (1j, "the reward is no number but complex"),
        (np.complex64(1), "the reward is no number but complex"),
        (np.timedelta64(1, "s"), "the reward is no number but timedelta"),
        (Decimal(1), "the reward is no number but Decimal"),
    ],
)
def test_a_reward_that_the_replay_could_not_keep_is_a_fault(reward: Any, told: str) -> None:
    with pytest.raises(EnvFaultError, match=f"^task 'odd', step 2: {told}$"):
        stepped(reward)


@pytest.mark.parametrize(
    "reward", [np.True_, Fraction(1), np.array([[1]]), np.float16(1), np.longdouble(1), 1, np.uint8(1)]
)
def test_numbers_of_all_kinds_are_rewards(reward: Any) -> None:
    assert stepped(reward) == 1.0
    assert type(stepped(reward)) is float


def test_the_largest_reward_is_one() -> None:
    assert stepped(3.4e38) == 3.4e38


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int8])
@pytest.mark.parametrize(
    "shape",
    [
        (63, 64),
        (20, 20),
        (20, 20, 1),
        (1, 20, 20),
        (20, 20, 2),
        (2, 40, 40),
        (9, 20, 20),
        (63, 64, 4),
        (2, 20, 20, 3),
    ],
)
def test_grids_of_numbers_are_vectors(shape: tuple[int, ...], dtype: Any) -> None:
    assert read_layout("odd", Box(-1, 1, shape, dtype)).space == Box(-np.inf, np.inf, (int(np.prod(shape)),))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int8])
@pytest.mark.parametrize(
    "shape",
    [
        *[(84, 84), (84, 84, 1), (1, 84, 84), (64, 64)],  # gray
        *[(84, 84, 3), (3, 84, 84), (16, 16, 3), (3, 20, 40)],
        *[(4, 84, 84), (9, 64, 64), (84, 84, 4), (84, 84, 2), (2, 84, 84, 3)],
    ],
)
def test_images_that_are_no_bytes_are_refused_however_they_are_shaped(
    shape: tuple[int, ...], dtype: Any
) -> None:
    told = (
        r"^task 'odd' has observations Box\(.*\) of .*: give images as bytes, .*; other numbers, flattened$"
    )
    for space in (Box(0, 1, shape, dtype), Dict(camera=Box(0, 1, shape, dtype), speed=THREE)):
        with pytest.raises(UnsupportedSpacesError, match=told):
            read_layout("odd", space)
