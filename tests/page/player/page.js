// The smallest page that plays a session: for tests of the player's clock.

import { Player } from "./live-player.js";
import { socketAddress } from "./live-protocol.js";
import { LiveSession } from "./live-session.js";

document.querySelector("#start").addEventListener("click", async () => {
  const context = new AudioContext();
  await context.audioWorklet.addModule("live-playback-worklet.js");
  let player = null;
  const start = { avatar: "marked", sampleRate: context.sampleRate };
  const session = new LiveSession(socketAddress(location.href), start, {
    session: ({ fps, latency }) => {
      player = new Player(context, document.querySelector("#live-canvas"), { fps: Number(fps), latency });
      Object.assign(window, { player, session });
    },
    frame: (frame) => player.push(frame),
    segment: () => player.complete(),
    close: (error) => (window.ended = error ?? "ended"),
  });
});
