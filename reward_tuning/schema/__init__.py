"""What a recipe may say, and how it is loaded and checked. Imports no network."""
