"""MXNet's symbol graphs as ONNX models: operators, their assembly, and the model that users run."""
