"""A package that adds one plug-in to every group of selfedit."""
