"""MLflow: runs of studies and trials, written without ever waiting for it."""
