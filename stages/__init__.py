"""The six verbs of the pipeline, a package each, and the packages they share. No Prefect here."""
