// The options of the form, built from the API's own schema: names, descriptions, values and defaults come from there.
import { element, FileField } from "./shared.js";

const COMMON = ["background", "quality", "blend", "model"]; // which of them are shown first; all others follow
const OWN = ["face_file", "audio_file", "avatarFileType"]; // fields that the page fills from the files
const COLOR = /^#[0-9a-f]{6}$/i;

/** The options as form controls. `only`: names, for a form that has fewer. */
export class OptionsForm {
  #controls = new Map();

  constructor(commonRoot, otherRoot, schema, { only = null, prefix = "option" } = {}) {
    const names = Object.keys(schema.properties).filter((name) => !OWN.includes(name) && (!only || only.includes(name)));
    const common = COMMON.filter((name) => names.includes(name));
    const other = names.filter((name) => !common.includes(name));
    for (const [root, group, isCommon] of [[commonRoot, common, true], [otherRoot, other, false]]) {
      for (const name of group) {
        const required = schema.required?.includes(name);
        const control = makeControl(name, schema.properties[name], { id: `${prefix}-${name}`, required, isCommon });
        this.#controls.set(name, control);
        root.append(control.root);
      }
    }
  }

  /** Return what differs from the defaults, and what the form requires: `{name: text or File}`. */
  values() {
    const given = [...this.#controls].map(([name, control]) => [name, control.value()]);
    return Object.fromEntries(given.filter(([, value]) => value !== null));
  }

  /** Show an error at a field and return true, if it is one of these. */
  error(name, text) {
    const control = this.#controls.get(name);
    if (!control) return false;
    control.error(text);
    const details = control.root.closest("details");
    if (details) details.open = true;
    control.focus();
    return true;
  }

  clearErrors() {
    for (const control of this.#controls.values()) control.error("");
  }
}

function makeControl(name, schema, { id, required, isCommon }) {
  if (schema.format === "binary") return fileControl(name, schema, id);
  const input = makeInput(schema, id);
  const error = element("p", { className: "error", id: `${id}-error`, hidden: true });
  const hint = element("p", { className: "hint", id: `${id}-hint`, hidden: isCommon }, ...described(schema.description));
  input.main.setAttribute("aria-describedby", `${id}-hint ${id}-error`);
  const label = element("label", { for: id }, words(name));
  const head = input.isCheck
    ? element("div", { className: "check" }, input.main, label)
    : element("div", { className: "option-head" }, label, isCommon ? helpButton(name, hint) : null);
  const body = input.isCheck ? [] : input.parts;
  const root = element("div", { className: "option" }, head, ...body, hint, error);
  const standard = schema.default ?? (required ? null : "");
  return {
    root,
    value: () => (input.value() === standard || input.value() === "" ? null : input.value()),
    error: (text) => showError(input.main, error, text),
    focus: () => input.main.focus(),
  };
}

function showError(input, region, text) {
  region.textContent = text;
  region.hidden = !text;
  if (text) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
}

function fileControl(name, schema, id) {
  const root = element("div", { className: "option" });
  const field = new FileField(root, { id, name, label: words(name), hint: described(schema.description), accept: "image/*" });
  return { root, value: () => field.file, error: (text) => field.error(text), focus: () => field.focus() };
}

function makeInput(schema, id) {
  if (schema.enum?.join() === "true,false") return checkInput(schema, id);
  if (schema.enum) return selectInput(id, schema.enum, schema.default);
  if (schema.examples?.length) return exampleInput(schema, id);
  return textInput(schema, id);
}

function checkInput(schema, id) {
  const main = element("input", { type: "checkbox", id, checked: schema.default === "true" });
  return { main, isCheck: true, value: () => String(main.checked) };
}

function selectInput(id, values, chosen) {
  const choices = values.map((value) => element("option", { value, selected: value === chosen }, sentence(value)));
  const main = element("select", { id }, ...choices);
  return { main, parts: [main], value: () => main.value };
}

/** A text whose usual values are examples: a list of them, and another value (a color, where one is a color). */
function exampleInput(schema, id) {
  const color = schema.examples.find((example) => COLOR.test(example));
  const usual = schema.examples.filter((example) => !COLOR.test(example));
  const input = selectInput(id, [...usual, "\u0000"], schema.default ?? usual[0]);
  input.main.lastChild.textContent = color ? "Another color…" : "Another value…";
  const own = element("input", {
    type: color ? "color" : "text",
    value: color ?? "",
    hidden: true,
    "aria-label": color ? "Color" : "Value",
  });
  const isOwn = () => input.main.value === "\u0000";
  input.main.addEventListener("change", () => (own.hidden = !isOwn()));
  return { main: input.main, parts: [input.main, own], value: () => (isOwn() ? own.value : input.main.value) };
}

function textInput(schema, id) {
  const isNumber = ["integer", "number"].includes(schema.type);
  const main = element("input", {
    type: isNumber ? "number" : "text",
    id,
    value: schema.default ?? "",
    min: schema.minimum,
    max: schema.maximum,
    step: schema.type === "number" ? "any" : undefined,
    maxLength: schema.maxLength,
    autocomplete: "off",
    spellcheck: false,
  });
  return { main, parts: [main], value: () => main.value.trim() };
}

function helpButton(name, hint) {
  const button = element(
    "button",
    { type: "button", "aria-expanded": "false", "aria-controls": hint.id, "aria-label": `About: ${words(name)}` },
    "?",
  );
  button.addEventListener("click", () => {
    hint.hidden = !hint.hidden;
    button.setAttribute("aria-expanded", String(!hint.hidden));
  });
  return button;
}

/** Return the text of a description, with what is between backticks as code. */
const described = (text = "") =>
  text.split("`").map((part, index) => (index % 2 ? element("code", {}, part) : document.createTextNode(part)));

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** Return the name of a field for a person: `no_face` is "No face". */
export const words = (name) => sentence(name.replaceAll("_", " "));
