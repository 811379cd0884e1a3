"""The sub-commands, one module each; they import what takes long when they run."""
