"""Language models: one class per way to reach one."""
