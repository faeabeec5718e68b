"""`GET /v1/live`: sessions of the model `live` over a WebSocket. docs/guide/live-socket.md describes the messages."""
