"""Numbers from outcomes; one grader or reward a file."""
