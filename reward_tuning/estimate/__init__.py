"""What a recipe's run needs: memory by phase, operations, time and disk, before it starts."""
