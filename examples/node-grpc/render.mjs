// Call the model `avatar` by gRPC: progress while the video is made, and its bytes as soon as they exist.
//
//     npm ci && node render.mjs face.png speech.wav out.mp4 background=White
//
// Triton's gRPC is at AVATAR_SERVER. Exit status: 0 the video is saved, 1 the service or a file says no. Ctrl-C cancels the
// work on the server.
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const SERVER = process.env.AVATAR_SERVER ?? "127.0.0.1:8001";
const PROTO = new URL("../../client/proto/grpc_service.proto", import.meta.url).pathname; // both files, in one folder
const LARGEST = 1 << 30; // bytes of a response; the default of 4 MB is less than a frame in full HD

/** Return the bytes of a text as Triton wants them: four bytes of length, lowest first, and then the text. */
function bytes(text) {
  const data = Buffer.from(text, "utf-8");
  const length = Buffer.alloc(4);
  length.writeUInt32LE(data.length);
  return Buffer.concat([length, data]);
}

/** Return the request: one entry of `inputs`, and one of `raw_input_contents`, for each file and each text. */
async function request(face, speech, options) {
  const inputs = [];
  const raw = [];
  for (const [name, path] of [["face_file", face], ["audio_file", speech]]) {
    const data = await readFile(path);
    inputs.push({ name, datatype: "UINT8", shape: [data.length] });
    raw.push(data);
  }
  for (const option of options) {
    const [name, text] = option.split(/=(.*)/s, 2);
    inputs.push({ name, datatype: "BYTES", shape: [1] });
    raw.push(bytes(text));
  }
  return { model_name: "avatar", id: `node-${process.pid}`, inputs, raw_input_contents: raw };
}

async function render(face, speech, out, options) {
  const { inference } = grpc.loadPackageDefinition(loadSync(PROTO, { keepCase: true, longs: Number, enums: String }));
  const limits = { "grpc.max_receive_message_length": LARGEST, "grpc.max_send_message_length": -1 };
  const client = new inference.GRPCInferenceService(SERVER, grpc.credentials.createInsecure(), limits);
  const message = await request(face, speech, options);
  const video = createWriteStream(out);
  await once(video, "open"); // a folder that does not exist ends here, with its error
  const call = client.ModelStreamInfer();
  process.once("SIGINT", () => call.cancel());
  call.write(message);
  call.end();
  let summary = null;
  try {
    for await (const { error_message, infer_response } of call) {
      if (error_message) throw new Error(error_message); // 400 face_file: ...
      const outputs = {};
      infer_response.outputs.forEach(({ name }, n) => (outputs[name] = infer_response.raw_output_contents[n]));
      if (outputs.stage) {
        const total = outputs.total.readInt32LE();
        console.error(`${outputs.stage.subarray(4)} ${outputs.done.readInt32LE()}${total < 0 ? "" : ` of ${total}`}`);
      }
      if (outputs.video && !video.write(outputs.video)) await once(video, "drain");
      if (outputs.summary) summary = JSON.parse(outputs.summary.subarray(4));
    }
    if (!summary) throw new Error("the stream ended without a summary, so the video is not complete");
  } catch (error) {
    await rm(out, { force: true });
    throw error;
  } finally {
    await new Promise((closed) => video.end(closed));
    client.close();
  }
  return summary;
}

const [face, speech, out, ...options] = process.argv.slice(2);
if (!out || options.some((option) => !option.includes("="))) {
  console.error("usage: node render.mjs FACE SPEECH OUT [INPUT=VALUE ...]");
  process.exit(1);
}
try {
  const { frames, stand_ins } = await render(face, speech, out, options);
  if (stand_ins.length) console.error(`stand-ins: ${stand_ins.join(", ")}`);
  console.log(`${out}: ${frames} frames`);
} catch (error) {
  console.error(error.code === grpc.status.UNAVAILABLE ? `no Triton at ${SERVER}: ${error.details}` : error.message);
  process.exit(1);
}
