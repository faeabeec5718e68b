"""The models: one protocol, and the clients that implement it over gRPC and inside Triton."""
