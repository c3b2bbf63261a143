"""The machinery under every stage: errors, configuration, schemas, artifacts, tables, CLIP loading. No Prefect here."""
