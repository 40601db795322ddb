"""The keys of a recipe, its loading and its checks. Imports no torch."""
