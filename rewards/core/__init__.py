"""The basis of every judge: base classes, weight files, preprocessing."""
