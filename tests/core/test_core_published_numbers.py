"""Number by number against the published implementation (see tests/fixtures/official_tdmpc2/README.md)."""

from collections.abc import Callable

import pytest
from recorded_cases import CASES, CHECKS, Case, check_candidate_values

from tdmpc_ray.core.agents.tdmpc2.fused import fused_model


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", CASES)
def test_recorded_numbers(name: str, check: Callable[[Case], None]) -> None:
    check(Case(name))


@pytest.mark.parametrize("name", CASES)
def test_candidate_values_of_the_kernels(name: str) -> None:
    check_candidate_values(Case(name), fused_model)
