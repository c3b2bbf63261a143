"""The six verbs of the road, one file each, and the modules each verb owns. No Prefect here."""
