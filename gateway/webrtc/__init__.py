"""`POST /v1/live/webrtc`: live sessions with tracks of video and audio. Needs aiortc; docs/guide/live-webrtc.md."""
