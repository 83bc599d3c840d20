"""The objectives that a training step minimises, one a file.

Their settings are in `training/objective_settings.py`.
"""
