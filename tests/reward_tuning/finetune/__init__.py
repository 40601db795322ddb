"""Tests of the fine-tuning on clips."""
