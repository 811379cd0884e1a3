"""The command `patchcore-course` and the reports that it writes."""
