"""The papers: recipes, printed figures and claims."""
