"""The package attacked: what it promises, checked by code that shares nothing with it."""
