"""What goes to others: model cards and uploads to a hub."""
