"""The pipeline as Prefect's flows with their deployments, ablation plans, and the command line."""
