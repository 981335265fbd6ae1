"""A study file: its keys, what they mean, and what is wrong with one."""
