"""Certificates of networks of three or more layers: lower bounds, and the first and second order at given layers."""
