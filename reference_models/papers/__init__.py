"""Recipes, printed figures and claims of each paper."""
