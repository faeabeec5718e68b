// How long it takes from a word at the microphone until the face says it.

export class Delay {
  constructor() {
    this.captures = []; // {sent: seconds of speech that were sent, at: second of the context at which they ended}
    this.waiting = null; // {index, soundTime} of a frame that was not heard yet
    this.seconds = null;
  }

  onSent(sent, at) {
    this.captures.push({ sent, at });
    if (this.captures.length > 1000) this.captures.shift();
  }

  onFrame({ index, soundTime }) {
    if (soundTime >= 0) this.waiting ??= { index, soundTime };
  }

  clear() {
    this.waiting = null;
  }

  /** Return the delay in seconds, or null before anything was said; `timeOf` gives when a frame is played. */
  measure(timeOf, outputLatency) {
    if (!this.waiting) return this.seconds;
    const played = timeOf(this.waiting.index);
    const capture = this.captures.find(({ sent }) => sent > this.waiting.soundTime);
    if (played === null || !capture) return this.seconds;
    const spoken = capture.at - (capture.sent - this.waiting.soundTime);
    this.seconds = played + outputLatency - spoken;
    this.waiting = null;
    return this.seconds;
  }
}
