"""Commands for maintainers: run all recipes, compare frameworks, write the report."""
