"""The report of a run as one HTML page, made from plain data: it asks for nothing outside and runs no script."""
