// Takes sound in pieces of INT16, with the loudness of each, at the rate of the context. The first input is the microphone,
// the second one a file. Messages to it: {muted} or {closed}; it answers to `muted`, and later pieces follow that.

const BLOCK = 128; // samples; without any input there is silence

class CaptureProcessor extends AudioWorkletProcessor {
  constructor({ processorOptions: { size } }) {
    super();
    this.piece = new Int16Array(size);
    this.count = 0;
    this.squares = 0;
    this.muted = this.closed = false;
    this.port.onmessage = ({ data }) => this.receive(data);
  }

  receive(message) {
    Object.assign(this, message);
    if (!("muted" in message)) return;
    this.count = this.squares = 0;
    this.port.postMessage(message);
  }

  process([[microphone], [file]]) {
    const length = microphone?.length ?? file?.length ?? BLOCK;
    for (let n = 0; n < length; n++) {
      const sample = (this.muted ? 0 : (microphone?.[n] ?? 0)) + (file?.[n] ?? 0);
      const value = Math.max(-1, Math.min(1, sample));
      this.squares += value * value;
      this.piece[this.count++] = Math.round(value * 32767);
      if (this.count === this.piece.length) this.send();
    }
    return !this.closed;
  }

  send() {
    const loudness = Math.sqrt(this.squares / this.count);
    this.port.postMessage({ samples: this.piece, loudness, end: currentFrame }, [this.piece.buffer]);
    this.piece = new Int16Array(this.count);
    this.count = this.squares = 0;
  }
}

registerProcessor("live-capture", CaptureProcessor);
