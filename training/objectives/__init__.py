"""What a training minimises: one file for each objective."""
