"""Running a study: on Tune, here or on a cluster, to its end and beyond an interruption."""
