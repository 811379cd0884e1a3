"""The three experiments: parameters -> rows -> CSV -> figures."""
