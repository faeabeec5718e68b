"""The statements on the tables: each function is one transaction, and keeps our record and the queue the same."""
