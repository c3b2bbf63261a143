"""stages.assemble."""
