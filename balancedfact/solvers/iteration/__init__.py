"""The iteration kit, shared by every search: limits, records and progress, products of layers."""
