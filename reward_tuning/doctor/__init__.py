"""What a machine has and what a recipe needs, each fact with what to do."""
