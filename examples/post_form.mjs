// Post a form with Node's own fetch, and save the video. It needs Node 20 or newer, and no package.
//
//     node post_form.mjs face.png speech.wav out.mp4 background=White quality=draft
//
// The service is at AVATAR_URL, and AVATAR_API_KEY is its key if it needs one. Exit status: 0 the video is saved, 1 the
// service or a file says no.
import { createWriteStream, openAsBlob } from "node:fs";
import { basename, extname } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

const URL = process.env.AVATAR_URL ?? "http://127.0.0.1:16000";
const KEY = process.env.AVATAR_API_KEY;

async function main(face, speech, out, options) {
  const form = new FormData();
  form.set("face_file", await openAsBlob(face), basename(face)); // read while it is sent
  form.set("audio_file", await openAsBlob(speech), basename(speech));
  form.set("avatarFileType", extname(face).slice(1));
  for (const option of options) form.set(...option.split(/=(.*)/s, 2));
  const headers = KEY ? { Authorization: `Bearer ${KEY}` } : {};
  const response = await fetch(URL, { method: "POST", body: form, headers });
  if (!response.ok) {
    const text = await response.text();
    let detail = text.slice(0, 200); // of a proxy in between
    try {
      detail = JSON.parse(text).detail;
    } catch {}
    throw new Error(`${response.status}: ${detail} (request ${response.headers.get("x-request-id")})`);
  }
  await pipeline(Readable.fromWeb(response.body), createWriteStream(out));
  for (const name of ["X-Avatar-Stand-Ins", "X-Avatar-Ignored-Fields", "X-Avatar-Notes"]) {
    if (response.headers.has(name)) console.error(`${name}: ${response.headers.get(name)}`);
  }
  console.log(`${out}: ${response.headers.get("X-Avatar-Frames")} frames`);
}

const [face, speech, out, ...options] = process.argv.slice(2);
if (!out || options.some((option) => !option.includes("="))) {
  console.error("usage: node post_form.mjs FACE SPEECH OUT [FIELD=VALUE ...]");
  process.exit(1);
}
try {
  await main(face, speech, out, options);
} catch (error) {
  // fetch hides why it failed in `cause`
  const reason = error.cause ? `${URL} does not answer: ${error.cause.message || error.cause.code}; is it running (make up)?` : error.message;
  console.error(reason);
  process.exit(1);
}
