"""What every judge stands on: base classes, weight files, preprocessing."""
