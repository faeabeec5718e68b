// A conversation: the microphone, the session and the player together. The page of it is live.js.

import { Delay } from "./live-delay.js";
import { Microphone } from "./live-microphone.js";
import { Player } from "./live-player.js";
import { socketAddress } from "./live-protocol.js";
import { LiveSession } from "./live-session.js";
import { SpeechDetector } from "./live-speech.js";

const RATES = [8000, 48000]; // of the sound that the service takes

/** Return a running context at a rate that the service takes, with the worklets. */
async function openContext() {
  let context = new AudioContext({ latencyHint: "interactive" });
  if (context.sampleRate < RATES[0] || context.sampleRate > RATES[1]) {
    await context.close();
    context = new AudioContext({ latencyHint: "interactive", sampleRate: RATES[1] });
  }
  const modules = ["live-playback-worklet.js", "live-capture-worklet.js"];
  await Promise.all(modules.map((name) => context.audioWorklet.addModule(new URL(name, import.meta.url))));
  await context.resume();
  return context;
}

export class Talk {
  /** `on`: `ready(info)`, `microphoneLost()`, `slow()`, `speaking(isSpeaking)`, `level(loudness)`, `close(error)`. */
  constructor(canvas, on) {
    Object.assign(this, { canvas, on });
    this.delay = new Delay();
    this.isMuted = this.closed = false;
    this.context = this.microphone = this.session = this.player = this.detector = null;
    this.stillAtRest = false;
    this.arrived = 0; // seconds of the speech whose frames have come
  }

  /** Open the sound and the session; return why there is no microphone, or null. */
  async start({ avatar, face, key, echoCancellation }) {
    this.context = await openContext();
    this.microphone = new Microphone(this.context, (piece) => this.take(piece));
    this.detector = new SpeechDetector(this.microphone.seconds);
    const problem = await this.microphone
      .open({ echoCancellation, onEnd: () => this.on.microphoneLost() })
      .then(() => null, (error) => error);
    if (this.closed) {
      this.release(); // ended while the browser asked for the microphone
      return null;
    }
    const start = { avatar, face, key, sampleRate: this.context.sampleRate };
    this.session = new LiveSession(socketAddress(document.baseURI), start, {
      session: (info) => this.onSession(info),
      frame: (frame) => this.onFrame(frame),
      segment: () => this.player?.complete(),
      slow: () => this.on.slow(),
      close: (error) => this.finish(error),
    });
    return problem;
  }

  onSession(info) {
    Object.assign(this.canvas, { width: info.width, height: info.height });
    const timing = { fps: ratio(info.fps), latency: info.latency, lead: this.detector.lead };
    this.player = new Player(this.context, this.canvas, timing);
    this.player.stillAtRest = this.stillAtRest;
    this.on.ready(info);
  }

  onFrame(frame) {
    if (!frame.atRest) this.arrived = frame.soundTime + frame.sound.length / this.context.sampleRate;
    this.delay.onFrame(frame);
    this.player?.push(frame);
  }

  take(piece) {
    if (!this.player || this.closed) return;
    this.on.level(piece.loudness);
    const was = this.detector.speaking;
    const { send, ended } = this.detector.take(piece);
    for (const { samples, end } of send) {
      this.session.speak(samples);
      this.delay.onSent(this.spoken, end / this.context.sampleRate);
    }
    if (ended) this.session.endSegment();
    if (this.detector.speaking !== was) this.on.speaking(this.detector.speaking);
  }

  mute(isMuted) {
    this.isMuted = isMuted;
    this.microphone.mute(isMuted);
    if (isMuted && this.detector.stop()) {
      this.session.endSegment();
      this.on.speaking(false);
    }
  }

  /** Stop what the face says, at once. */
  interrupt() {
    if (!this.player) return;
    this.microphone.stopFile();
    this.session.clear(this.player.clear());
    this.delay.clear();
    this.arrived = this.spoken;
  }

  /** Seconds of speech that were sent. */
  get spoken() {
    return this.session.sent / this.context.sampleRate;
  }

  say(file) {
    return this.microphone.play(file);
  }

  /** Return {rate, late, stalls, buffer, delay, behind: seconds of speech without frames}, or null before the start. */
  figures() {
    if (!this.player) return null;
    const { outputLatency = 0 } = this.context;
    const delay = this.delay.measure((index) => this.player.timeline.timeOf(index), outputLatency);
    return { ...this.player.figures(), delay, behind: this.spoken - this.arrived };
  }

  /** End the session; sound and pictures stop at once. */
  end() {
    this.session?.end();
    this.finish(null);
    this.session?.cancelSoon();
  }

  finish(error) {
    if (this.closed) return;
    this.closed = true;
    this.release();
    this.on.close(error);
  }

  release() {
    this.player?.close();
    this.microphone?.close();
    if (this.context?.state !== "closed") this.context?.close();
  }
}

/** Return a number of a text such as `25` or `24000/1001`. */
export function ratio(text) {
  const [upper, lower = 1] = String(text).split("/").map(Number);
  return upper / lower;
}
