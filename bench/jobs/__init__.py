"""How the queue of jobs behaves when it is long."""
