// Starts the page: the tabs, what the service has, and the two panels.
import { askForKey, find, serviceIndex } from "./shared.js";
import { start } from "./video.js";

const TABS = ["video", "live"].map((name) => ({ name, tab: find(`#tab-${name}`), panel: find(`#panel-${name}`) }));

/** Show one panel; tell it by the event `shown`, and the others by `hidden`. */
function select(name, focus = false) {
  for (const each of TABS) {
    const chosen = each.name === name;
    each.tab.setAttribute("aria-selected", String(chosen));
    each.tab.tabIndex = chosen ? 0 : -1;
    if (each.panel.hidden === chosen) {
      each.panel.hidden = !chosen;
      each.panel.dispatchEvent(new Event(chosen ? "shown" : "hidden"));
    }
    if (chosen && focus) each.tab.focus();
  }
  history.replaceState(null, "", name === "video" ? location.pathname + location.search : `#${name}`);
}

for (const [index, { name, tab }] of TABS.entries()) {
  tab.addEventListener("click", () => select(name));
  tab.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: TABS.length - 1 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    select(TABS[(steps[event.key] + TABS.length) % TABS.length].name, true);
  });
}

async function describe() {
  const index = await serviceIndex();
  find("#version").textContent = `Version ${index.version}`;
  find("#docs-link").hidden = !index.docs || index.needs_key; // a link cannot send the key
  find("#key-button").hidden = !index.needs_key;
  find("#stand-ins").hidden = !index.stand_ins?.length;
  find("#tabs").hidden = !index.live;
  if (!index.live) select("video");
}

find("#key-button").addEventListener("click", () => askForKey("Enter another key.").catch(() => {}));
find("#panel-live").addEventListener("shown", () => import("./live.js"), { once: true }); // only who wants it loads it
select(location.hash === "#live" ? "live" : "video");
start().catch(() => {});
describe().catch(() => {});
