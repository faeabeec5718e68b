"""Lip-sync: mel windows and frames in, frames with a speaking mouth out."""
