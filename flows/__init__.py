"""The road: recipes, planning, the Prefect flow with its deployments, and the command line."""
