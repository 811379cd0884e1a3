"""What the notebooks show and ask, and what runs them."""
