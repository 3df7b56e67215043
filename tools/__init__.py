"""Scripts that make the project's documents and check it; none of them is part of the package."""
