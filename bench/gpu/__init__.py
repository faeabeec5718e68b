"""Take every figure of a machine with a GPU in one run that is limited in time."""
