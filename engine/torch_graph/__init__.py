"""MXNet's symbol graphs executed by PyTorch: reading, operators and the module of a graph."""
