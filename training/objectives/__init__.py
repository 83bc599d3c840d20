"""What a training step minimises, one objective a file; their settings are in `training.minimised`."""
