"""What studies have found: tables, figures, statistics, the report, charts in MLflow."""
