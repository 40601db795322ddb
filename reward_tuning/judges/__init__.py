"""A recipe's judges at work on clips, generated or from files."""
