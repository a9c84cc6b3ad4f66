"""The lesson's loop and what surrounds it: recipes, seeds, several processes."""
