"""Studies: files in, Tune on Ray, MLflow, tables and figures out."""
