"""The error of the package: one family, which the command line reports without a traceback."""

import rewards
from reward_tuning.cli import FAMILIES
from rewards.errors import RewardError


def test_it_is_one_family_that_the_command_line_knows() -> None:
    assert issubclass(RewardError, ValueError)
    assert rewards.RewardError is RewardError
    assert FAMILIES[RewardError.__module__] == RewardError.__name__
