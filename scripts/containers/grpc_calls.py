"""Call `avatar`, `live` and the parts with the project's client: grpc_calls.py HOST:PORT SAMPLES.

It runs on the host and in a container, where only the client package and its dependencies are.
"""

import sys
import wave

import numpy as np

from avatar_client import AvatarClient

server, samples = sys.argv[1:3]
with AvatarClient(server) as client:
    video = client.render(f"{samples}/face.png", f"{samples}/speech.wav", background="White").read()
    print("avatar", video[4:8].decode())
    picture = np.full((1, 480, 640, 3), 128, np.uint8)
    boxes, _ = client.detect_faces(picture)
    print("detect_faces", boxes.shape)
    with wave.open(f"{samples}/speech.wav") as file:
        speech = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    windows = client.mel(speech.astype(np.float32) / 32768, fps=25)
    mouths = client.lipsync(picture, np.array([[100, 60, 215, 205]], np.int32), windows[:8])
    print("lipsync", mouths.shape)
    with client.live(f"{samples}/face.png", format="jpeg") as session:
        for start in range(0, 16000, 640):
            session.send(speech[start : start + 640])
        session.end()
        print("live", len(list(session)), "frames")
