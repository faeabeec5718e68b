"""Requests to the URLs that callers name: downloads, uploads and webhooks, to public addresses only."""
