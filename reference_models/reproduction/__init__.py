"""Maintainers' commands: run every recipe, compare frameworks, write the report."""
