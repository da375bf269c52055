"""One YAML a recipe, and what it takes to run one.

How a recipe is read is in `tree`, the sections that recipes share in `sections`, the models and documents that a recipe
names in `build`, and what the commands share in `command`.
"""
