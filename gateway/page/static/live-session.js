// One session over the socket: what is sent and what comes, without anything of the page.

import * as protocol from "./live-protocol.js";

const MOST_UNSENT = 2; // seconds of sound that may wait in the browser for a slow network
const MOST_END_MS = 2000; // for the service to end a session in order
const NOT_OPENED = "The service opens no live session: it does not answer, or live sessions are switched off.";
const REASONS = {
  1001: "The service ended the session.",
  1006: "The connection was lost.",
  1012: "The service is being restarted.",
  1013: "The service has no place for a session now. Try again later.",
};

export class LiveSession {
  /**
   * @param {string} address of the socket
   * @param {object} start see `startMessage`
   * @param {object} on `session`, `frame`, `segment`, `cleared`, `summary`: called with what came; `slow`: called once,
   *   when speech had to be left out; `close`: called once, with {detail, status, code, field, request_id, retry_after}
   *   of what went wrong, or with null after the normal end
   * @param {number} patience seconds without a message after which a session is lost: a face at rest is sent, too
   */
  constructor(address, start, on, patience = 10) {
    Object.assign(this, { start, on });
    this.info = null;
    this.error = null;
    this.clearing = 0; // answers to `clear` that did not come yet; frames before them are of dropped speech
    this.opened = this.ending = this.closed = false;
    this.sent = 0; // samples
    this.isSlow = false;
    this.last = performance.now();
    this.watch = setInterval(() => this.check(patience), (patience * 1000) / 4);
    this.socket = new WebSocket(address, protocol.SUBPROTOCOL);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.open();
    this.socket.onmessage = ({ data }) => this.receive(data);
    this.socket.onclose = ({ code, reason }) => this.finish(code, reason);
  }

  async open() {
    this.opened = true;
    this.socket.send(protocol.startMessage(this.start));
    if (this.start.avatar) return;
    for await (const part of protocol.fileMessages(this.start.face)) this.send(part);
  }

  /** Send samples of speech; they are left out where the network takes less than is spoken. */
  speak(samples) {
    if (!this.info || this.ending) return;
    if (this.socket.bufferedAmount > MOST_UNSENT * 2 * this.start.sampleRate) {
      if (!this.isSlow) this.on.slow?.();
      this.isSlow = true;
      return;
    }
    this.send(protocol.pcmMessage(samples));
    this.sent += samples.length;
  }

  endSegment() {
    this.send(protocol.segmentEndMessage());
  }

  /** Drop all speech that was not shown yet: `shown` is the frame that the page shows now. */
  clear(shown) {
    if (!this.info) return;
    this.clearing += 1;
    this.send(protocol.clearMessage(shown));
  }

  /** End the session: its last frames and the summary come before the socket closes. */
  end() {
    this.ending = true;
    this.send(protocol.endMessage());
  }

  /** Close the socket soon, whatever the service answers to `end`. */
  cancelSoon() {
    setTimeout(() => this.socket.close(1000), MOST_END_MS);
    this.finish(1000, "");
  }

  send(data) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(data);
  }

  /** Give up a session from which nothing comes: a network that is lost closes no socket. */
  check(patience) {
    if (!this.info || performance.now() - this.last < patience * 1000) return;
    this.error ??= { detail: `The connection was lost: nothing has come for ${patience} s.` };
    this.socket.close(1000);
    this.finish(1006, "");
  }

  receive(data) {
    if (this.closed) return; // the page has left, and the socket closes soon
    this.last = performance.now();
    try {
      if (data instanceof ArrayBuffer) this.receiveFrame(protocol.parseFrame(data));
      else this.receiveMessage(protocol.parseMessage(data));
    } catch (error) {
      this.error = { detail: `The service sent what this page cannot read: ${error.message}.` };
      this.socket.close(1000);
    }
  }

  receiveFrame(frame) {
    if (!this.clearing) this.on.frame(frame);
  }

  receiveMessage(message) {
    const { type, ...content } = message;
    if (type === "session") this.info = content;
    if (type === "cleared") this.clearing = Math.max(0, this.clearing - 1);
    if (type === "summary") this.ending = true;
    if (type === "error") this.error = content;
    else this.on[type]?.(content);
  }

  finish(code, reason) {
    if (this.closed) return;
    this.closed = true;
    clearInterval(this.watch);
    const words = this.opened ? REASONS[code] : NOT_OPENED;
    const lost = { detail: reason || words || `The connection was closed (${code}).` };
    this.on.close(this.error ?? (this.ending ? null : lost));
  }
}
