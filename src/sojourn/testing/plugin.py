"""The pytest face of the store laws."""
