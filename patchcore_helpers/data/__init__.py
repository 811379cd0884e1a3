"""Images, categories and where they come from; nothing here knows the method."""
