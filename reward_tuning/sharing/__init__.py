"""What goes to others: model cards, uploads to a hub, mixes of adapters."""
