// The messages of GET /v1/live, in both directions. Nothing here touches the page: docs/guide/live-socket.md is the contract.

export const SUBPROTOCOL = "talking-avatar.live.v1";
export const REST = -1; // the sound_time of a frame of the face at rest

const HEADER = 16; // u32 index, u32 bytes of sound, f64 sound_time
const FILE_PART = 256 * 1024; // bytes of the face per message

/** Return a frame of a binary message: {index, soundTime, atRest, sound: Int16Array, jpeg: Uint8Array}. */
export function parseFrame(buffer) {
  if (buffer.byteLength < HEADER) throw new Error(`a frame of ${buffer.byteLength} bytes has no header`);
  const view = new DataView(buffer);
  const bytes = view.getUint32(4, true);
  if (bytes % 2 || HEADER + bytes > buffer.byteLength) throw new Error(`a frame has no ${bytes} bytes of sound`);
  const soundTime = view.getFloat64(8, true);
  return {
    index: view.getUint32(0, true),
    soundTime,
    atRest: soundTime < 0,
    sound: new Int16Array(buffer.slice(HEADER, HEADER + bytes)),
    jpeg: new Uint8Array(buffer, HEADER + bytes),
  };
}

/** Return the object of a text message; one that cannot be read is an error of the protocol. */
export function parseMessage(text) {
  const message = JSON.parse(text);
  if (typeof message?.type !== "string") throw new Error("a message has no type");
  return message;
}

/** Return the first message of a session: an avatar that the service has, or a file that follows it. */
export function startMessage({ avatar = null, face = null, options = {}, sampleRate, key = "" }) {
  const start = {
    type: "start",
    avatar,
    face_bytes: avatar ? null : face.size,
    options,
    sample_rate: sampleRate,
    format: "jpeg",
    echo: true,
    rest: true,
  };
  if (key) start.key = key;
  return JSON.stringify(start);
}

export const clearMessage = (shown) => JSON.stringify(shown < 0 ? { type: "clear" } : { type: "clear", shown });
export const segmentEndMessage = () => JSON.stringify({ type: "segment_end" });
export const endMessage = () => JSON.stringify({ type: "end" });

/** Yield the messages of a file, one after another. */
export async function* fileMessages(file) {
  for (let start = 0; start < file.size; start += FILE_PART) {
    yield await file.slice(start, start + FILE_PART).arrayBuffer();
  }
}

/** Return the bytes of samples, INT16 little endian on any machine. */
export function pcmMessage(samples) {
  const view = new DataView(new ArrayBuffer(samples.length * 2));
  samples.forEach((sample, n) => view.setInt16(2 * n, sample, true));
  return view.buffer;
}

/** Return the address of the socket for a page: the same host and folder, also below the path of a proxy. */
export function socketAddress(page) {
  const address = new URL("v1/live", page);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  return address.href;
}
