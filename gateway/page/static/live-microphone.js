// The microphone: asks for it, cuts its sound into pieces, and says in words why there is none.

const PIECE_SECONDS = 0.04;
const BLOCK = 128; // samples at once in a worklet

const WORDS = {
  NotAllowedError: "This page may not use the microphone. Allow it in the settings of the browser for this page.",
  NotFoundError: "No microphone is connected.",
  NotReadableError: "Another program uses the microphone. Close it.",
};

/** Whether this browser gives sound to this page at all; over plain HTTP it does only at localhost. */
export const isPossible = () => Boolean(navigator.mediaDevices && window.AudioWorkletNode);

export class Microphone {
  /**
   * @param {AudioContext} context with the module `live-capture-worklet.js`
   * @param {function} onPiece is called with each piece: {samples, loudness, end: sample of the context}
   */
  constructor(context, onPiece) {
    this.context = context;
    this.size = Math.round((PIECE_SECONDS * context.sampleRate) / BLOCK) * BLOCK;
    this.node = new AudioWorkletNode(context, "live-capture", {
      numberOfInputs: 2,
      numberOfOutputs: 0,
      channelCount: 1,
      channelCountMode: "explicit",
      processorOptions: { size: this.size },
    });
    this.node.port.onmessage = ({ data }) => {
      if ("muted" in data) this.changing -= 1;
      else if (!this.changing) onPiece(data);
    };
    this.changing = 0; // pieces that were taken before a change of `mute` are still on their way
    this.stream = this.file = null;
  }

  get seconds() {
    return this.size / this.context.sampleRate;
  }

  /** Open the microphone; throws an Error in words. `onEnd` is called when it is unplugged. */
  async open({ echoCancellation, onEnd }) {
    const audio = { echoCancellation, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ audio });
    } catch (error) {
      throw new Error(WORDS[error.name] ?? `The microphone cannot be used: ${error.message}`, { cause: error });
    }
    this.stream.getAudioTracks()[0].onended = onEnd;
    this.context.createMediaStreamSource(this.stream).connect(this.node);
  }

  /** Take the sound of a file as if it was spoken now. */
  async play(file) {
    const buffer = await this.context.decodeAudioData(await file.arrayBuffer());
    this.stopFile();
    this.file = new AudioBufferSourceNode(this.context, { buffer });
    this.file.connect(this.node, 0, 1);
    this.file.start();
  }

  stopFile() {
    this.file?.stop();
    this.file = null;
  }

  mute(isMuted) {
    this.changing += 1;
    this.node.port.postMessage({ muted: isMuted });
    for (const track of this.stream?.getAudioTracks() ?? []) track.enabled = !isMuted;
  }

  close() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.node.port.postMessage({ closed: true });
    this.node.disconnect();
  }
}
