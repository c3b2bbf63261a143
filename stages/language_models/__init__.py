"""Language models behind one protocol: requests in, responses out; one module per way to reach one."""
