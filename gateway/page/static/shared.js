// What both tabs use: elements, the API with its key and its errors, announcements, the schema, a field for a file.

/** Return the first element for a selector. */
export const find = (selector, root = document) => root.querySelector(selector);

/** Return a new element; `properties` are set on it, those with a dash and `role` as attributes. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.includes("-") || name === "role" || name === "for") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Let a screen reader read a sentence; nothing is shown. */
export function status(text) {
  find("#status").textContent = text;
}

/** Show a sentence in an alert region, such as `#form-alert`; an empty one clears it. */
export function problem(region, text) {
  region.replaceChildren(...(text ? [element("p", { className: "problem" }, text)] : []));
}

/** An error of the service, or of the way to it (`status` 0): `detail` is its sentence, `field` the field it names. */
export class ApiError extends Error {
  constructor(status, code, detail, retryAfter = null) {
    super(detail);
    Object.assign(this, { status, code, detail, retryAfter, field: fieldOf(code, detail) });
  }
}

/** Return the form field that a sentence of the service names, or null. */
export function fieldOf(code, detail) {
  if (code === "face_not_found" || detail.startsWith("Face not detected")) return "face_file";
  return /^([A-Za-z_]+): /.exec(detail)?.[1] ?? null;
}

const KEY = "avatar.key"; // in this tab's storage: it survives a reload, and no other tab reads it

/** Return the API key that was entered, or "". */
export function apiKey() {
  return stored(sessionStorage, KEY) ?? "";
}

/** Return what a storage holds, or null if it is not allowed. */
export function stored(storage, name) {
  try {
    return storage.getItem(name);
  } catch {
    return null;
  }
}

/** Put text into a storage; a full or forbidden one is left as it is. */
export function store(storage, name, text) {
  try {
    storage.setItem(name, text);
  } catch {
    /* the page works without it */
  }
}

let asking = null;

/** Ask for the API key in a dialog; throw ApiError if the person cancels. Several calls share one dialog. */
export function askForKey(reason) {
  asking ??= askOnce(reason).finally(() => (asking = null));
  return asking;
}

function askOnce(reason) {
  const dialog = find("#key-dialog");
  const input = find("#key-input");
  find("#key-reason").textContent = reason;
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve, reject) => {
    dialog.addEventListener(
      "close",
      () => {
        if (dialog.returnValue !== "ok" || !input.value.trim()) {
          reject(new ApiError(401, "unauthorized", reason));
          return;
        }
        store(sessionStorage, KEY, input.value.trim());
        input.value = "";
        resolve();
      },
      { once: true },
    );
  });
}

find("#key-cancel").addEventListener("click", () => find("#key-dialog").close());

/** Return the headers of a call: the key, if there is one. */
export function keyHeaders() {
  return apiKey() ? { Authorization: `Bearer ${apiKey()}` } : {};
}

/** Call the service; `path` is relative to the page. Asks for the key if one is needed. Throws ApiError. */
export async function api(path, { headers = {}, ...options } = {}) {
  for (;;) {
    let response;
    try {
      response = await fetch(path, { ...options, headers: { ...headers, ...keyHeaders() } });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw unreachable();
    }
    if (response.ok) return response;
    const failure = await failureOf(response);
    if (failure.status !== 401) throw failure;
    await askForKey(failure.detail);
  }
}

/** Return the error of a service that gives no response. */
export const unreachable = () =>
  new ApiError(0, "unreachable", "The service does not answer. Check that it runs and that this device is online.");

/** Return the error that a response is. */
export async function failureOf(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    /* a proxy answers with its own page */
  }
  return errorFrom(response.status, body, response.headers.get("Retry-After"));
}

/** Return an error from a status and the body of an error response. */
export function errorFrom(code, body, retryAfter = null) {
  const detail = body?.detail ?? `The service answered with status ${code}.`;
  const tail = body?.request_id ? ` (request ${body.request_id})` : "";
  return new ApiError(code, body?.code ?? null, detail + tail, retryAfter ? Number(retryAfter) : null);
}

const once = (load) => {
  let promise = null;
  return () => (promise ??= load().catch((error) => ((promise = null), Promise.reject(error))));
};

/** Return what the service has: `{version, jobs, docs, needs_key, stand_ins, …}`. */
export const serviceIndex = once(async () => (await api("./", { headers: { Accept: "application/json" } })).json());

/** Return the fields of the form from the OpenAPI schema: `{properties: {name: schema}, required: [name]}`. */
export const optionsSchema = once(
  async () => (await (await api("page/openapi.json")).json()).components.schemas.AvatarForm,
);

/** Return a size in bytes for a person. */
export function sizeText(bytes) {
  if (bytes < 1e3) return `${bytes} bytes`;
  return bytes < 1e6 ? `${Math.round(bytes / 1e3)} KB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** Return a file of the page, such as a sample, as a File. */
export async function asset(name, type) {
  const response = await api(`page/assets/${name}`);
  return new File([await response.blob()], name, { type });
}

/** The way that a face is chosen, on both tabs: `chooseFace(root, {id, onChange})`; see `FileField`. */
export const chooseFace = (root, options = {}) =>
  new FileField(root, {
    name: "face_file",
    label: "Face",
    hint: "A picture or a video of a person, from the front.",
    accept: "image/*,video/*",
    ...options,
  });

/**
 * A field for one file: choose it, drop it, or set it; with a preview. `file` is a File or null.
 *
 * options: id, name, label, hint, accept, onChange(file).
 */
export class FileField {
  #options;
  #url = null;

  constructor(root, options) {
    this.#options = options;
    const { id = options.name, name, label, hint, accept } = options;
    this.file = null;
    this.name = name;
    this.input = element("input", {
      type: "file",
      id,
      accept,
      className: "hidden-text",
      "aria-describedby": `${id}-hint ${id}-error`,
    });
    this.preview = element("span", { className: "preview", hidden: true });
    this.player = element("div", { className: "player", hidden: true });
    this.text = element("span", { className: "drop-text" });
    this.drop = element(
      "label",
      { className: "drop", for: id },
      this.preview,
      element("span", {}, element("span", { className: "field-label" }, label), this.text),
    );
    this.removeButton = element(
      "button",
      { type: "button", className: "link remove", hidden: true, "aria-label": `Remove: ${label}` },
      "Remove",
    );
    this.extra = element("div", { className: "field-actions" }, element("p", { className: "hint", id: `${id}-hint` }, ...[hint].flat()));
    this.errorText = element("p", { className: "error", id: `${id}-error`, hidden: true });
    const parts = [this.input, this.drop, this.removeButton, this.player, this.extra, this.errorText];
    this.root = element("div", { className: "file-field" }, ...parts);
    root.replaceChildren(this.root);
    this.#listen();
    this.#show();
  }

  #listen() {
    this.input.addEventListener("change", () => this.input.files[0] && this.set(this.input.files[0]));
    this.removeButton.addEventListener("click", () => {
      this.set(null);
      this.input.focus();
    });
    for (const kind of ["dragenter", "dragover"]) {
      this.root.addEventListener(kind, (event) => {
        event.preventDefault();
        this.root.classList.add("over");
      });
    }
    for (const kind of ["dragleave", "drop"]) {
      this.root.addEventListener(kind, (event) => {
        if (kind === "dragleave" && this.root.contains(event.relatedTarget)) return;
        this.root.classList.remove("over");
      });
    }
    this.root.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files[0]) this.set(event.dataTransfer.files[0]);
    });
  }

  /** Take a file, or null for none; show its preview. */
  set(file) {
    this.file = file;
    this.input.value = "";
    this.error("");
    this.#show();
    if (file) status(`${this.#options.label}: ${file.name}`);
    this.#options.onChange?.(file);
  }

  #show() {
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = this.file ? URL.createObjectURL(this.file) : null;
    this.root.classList.toggle("filled", Boolean(this.file));
    this.removeButton.hidden = !this.file;
    this.text.replaceChildren(...(this.file ? this.#description() : this.#invitation()));
    for (const place of [this.preview, this.player]) {
      place.replaceChildren();
      place.hidden = true;
    }
    if (this.file) this.#showMedia();
  }

  #invitation() {
    return [element("span", { className: "choose" }, "Choose a file"), " or drop one here"];
  }

  #description() {
    return [
      element("span", { className: "file-name" }, this.file.name),
      element("span", { className: "file-size" }, ` ${sizeText(this.file.size)}`),
    ];
  }

  #showMedia() {
    const kind = this.file.type.split("/")[0];
    const isPicture = this.#options.accept.startsWith("image");
    const place = isPicture ? this.preview : this.player;
    const onerror = () => (place.hidden = true); // a format that the browser does not show, such as HEIC
    if (isPicture && kind === "image") place.append(element("img", { src: this.#url, alt: "", onerror }));
    else if (isPicture) place.append(element("video", { src: `${this.#url}#t=0.1`, muted: true, playsInline: true, onerror }));
    else place.append(element("audio", { src: this.#url, controls: true, onerror, "aria-label": this.file.name }));
    place.hidden = false;
  }

  /** Show an error at the field, or none with "". */
  error(text) {
    this.errorText.textContent = text;
    this.errorText.hidden = !text;
    if (text) this.input.setAttribute("aria-invalid", "true");
    else this.input.removeAttribute("aria-invalid");
  }

  focus() {
    this.input.focus();
  }
}
