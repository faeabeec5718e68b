// The last jobs of this browser: what was sent and when. Kept in its local storage, nowhere else.
import { store, stored } from "./shared.js";

const NAME = "avatar.jobs";
const MOST = 8;
const PICTURE = 108; // pixels, twice what is shown

/** Return the jobs, newest first: `{id, face, speech, at, state, picture}`. */
export function jobs() {
  try {
    const list = JSON.parse(stored(localStorage, NAME) ?? "[]");
    return Array.isArray(list) ? list.filter((job) => typeof job?.id === "string") : [];
  } catch {
    return [];
  }
}

/** Add a job, or change what is known of it. */
export function remember(job) {
  const list = jobs();
  const known = list.find((each) => each.id === job.id);
  if (known) Object.assign(known, job);
  save((known ? list : [job, ...list]).slice(0, MOST));
}

export const forget = (id) => save(jobs().filter((job) => job.id !== id));

export const forgetAll = () => save([]);

const save = (list) => store(localStorage, NAME, JSON.stringify(list));

/** Return a small picture of a face as a data URL, or "" where the browser cannot show the file. */
export async function smallPicture(image) {
  try {
    const source = image instanceof HTMLVideoElement ? image : await decoded(image);
    const [width, height] = [source.videoWidth ?? source.naturalWidth, source.videoHeight ?? source.naturalHeight];
    const side = Math.min(width, height);
    if (!side) return "";
    const canvas = Object.assign(document.createElement("canvas"), { width: PICTURE, height: PICTURE });
    const place = [(width - side) / 2, (height - side) / 2, side, side, 0, 0, PICTURE, PICTURE];
    canvas.getContext("2d").drawImage(source, ...place);
    return canvas.toDataURL("image/jpeg", 0.75);
  } catch {
    return "";
  }
}

async function decoded(image) {
  await image?.decode();
  return image;
}
