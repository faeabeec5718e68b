"""Build a model repository: choose, export and publish the versions of every model."""
