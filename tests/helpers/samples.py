"""What tests ask of the samples of a category."""


def file_names(samples):
    """The names of the image files, in the order of the samples."""
    return [sample.image.name for sample in samples]


def relative_paths(samples, folder):
    """The sorted paths of the image files below a folder."""
    return sorted(sample.image.relative_to(folder).as_posix() for sample in samples)
