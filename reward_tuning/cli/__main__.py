"""`python -m reward_tuning.cli`, where the command itself is not on the path."""

from reward_tuning.cli import script

script()
