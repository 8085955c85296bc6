"""The recipe: what a run reads, trains and writes, in one short YAML file."""

from headrace.recipe.load import Recipe, load_recipe, shipped_recipe, shipped_recipes

__all__ = ["Recipe", "load_recipe", "shipped_recipe", "shipped_recipes"]
