"""Shipped recipes and prompt files, as package data."""
