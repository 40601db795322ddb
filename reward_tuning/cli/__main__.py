"""`python -m reward_tuning.cli`, for use when the command is not on the PATH."""

from reward_tuning.cli import script

script()
