"""The method: frozen backbone, patches, coreset, memory bank, detectors, metrics."""
