"""What a study would take, before it is run."""
