// The console's own script. Elements say what they want with data- attributes; without it every page still works,
// but for signing in with a key, which browsers offer to scripts only.

const token = () => document.querySelector('meta[name="csrf"]')?.content ?? "";

/** POST JSON; the answer's object, or an Error that carries the refusal's code and hint. */
export async function post(path, data) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json", "X-CSRF-Token": token() },
    body: JSON.stringify(data),
  });
  const said = await answer.json();
  if (!answer.ok) {
    const fault = said.error ?? { code: String(answer.status), message: "", hint: "" };
    throw Object.assign(new Error(`${fault.code}: ${fault.message}`), fault);
  }
  return said;
}

// Bytes of WebAuthn as base64url, both ways.
const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

function passkey(box) {
  const answer = box.querySelector("[data-answer]");
  const button = box.querySelector("[data-go]");
  const way = box.dataset.passkey === "enrol" ? register : signIn;
  button.addEventListener("click", async () => {
    answer.textContent = "";
    if (!window.PublicKeyCredential) {
      answer.textContent = box.dataset.unable;
      return;
    }
    button.disabled = true;
    try {
      location.assign((await way(box)).go);
    } catch (error) {
      answer.textContent = `${box.dataset.failed} ${error.message}`;
    } finally {
      button.disabled = false;
    }
  });
}

async function signIn() {
  const options = await post("/sign-in/options", {});
  options.challenge = bytes(options.challenge);
  const made = await navigator.credentials.get({ publicKey: options });
  return post("/sign-in", {
    id: made.id,
    rawId: text(made.rawId),
    type: made.type,
    response: {
      clientDataJSON: text(made.response.clientDataJSON),
      authenticatorData: text(made.response.authenticatorData),
      signature: text(made.response.signature),
      userHandle: made.response.userHandle ? text(made.response.userHandle) : null,
    },
  });
}

async function register(box) {
  const ticket = box.dataset.ticket;
  const options = await post("/enrol/options", { ticket });
  options.challenge = bytes(options.challenge);
  options.user.id = bytes(options.user.id);
  for (const one of options.excludeCredentials ?? []) one.id = bytes(one.id);
  const made = await navigator.credentials.create({ publicKey: options });
  return post("/enrol", {
    ticket,
    reply: {
      id: made.id,
      rawId: text(made.rawId),
      type: made.type,
      response: {
        clientDataJSON: text(made.response.clientDataJSON),
        attestationObject: text(made.response.attestationObject),
        transports: made.response.getTransports?.() ?? [],
      },
    },
  });
}

/** A form with a file: the browser need not send what the console refuses; dropping a file sends the form. */
function upload(form) {
  const answer = form.querySelector("[data-answer]");
  const files = () => [...form.querySelectorAll('input[type="file"]')].flatMap((input) => [...input.files]);
  form.addEventListener("submit", (event) => {
    const large = files().some((file) => file.size > Number(form.dataset.upload));
    answer.textContent = large ? form.dataset.large : "";
    if (large) event.preventDefault();
  });
  form.addEventListener("change", () => (answer.textContent = ""));
}

function drop(place) {
  const input = place.querySelector('input[type="file"]');
  const mark = (over) => place.classList.toggle("over", over);
  for (const name of ["dragenter", "dragover"])
    place.addEventListener(name, (event) => {
      event.preventDefault();
      mark(true);
    });
  place.addEventListener("dragleave", () => mark(false));
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(false);
    if (!event.dataTransfer.files.length) return;
    const one = new DataTransfer();
    one.items.add(event.dataTransfer.files[0]);
    input.files = one.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    if (place.dataset.drop !== "choose") input.form.requestSubmit();
  });
}

/** The live part of a run. Another phase is another page; what is read out changes rarely. */
function run(section) {
  const live = section.querySelector("[data-live]");
  const say = section.querySelector("[data-say]");
  const alarm = section.querySelector("[data-gone]");
  const source = new EventSource(section.dataset.run);
  source.addEventListener("state", (event) => {
    const state = JSON.parse(event.data);
    alarm.textContent = "";
    if (state.phase !== section.dataset.phase) {
      source.close();
      location.reload();
      return;
    }
    live.innerHTML = state.html; // a template of the console's own, every value in it escaped
    if (say.textContent !== state.say) say.textContent = state.say;
  });
  source.addEventListener("signed-out", () => {
    source.close();
    alarm.textContent = alarm.dataset.signedOut;
  });
  source.addEventListener("ending", () => {
    source.close();
    alarm.textContent = alarm.dataset.gone;
  });
  source.addEventListener("error", () => (alarm.textContent = alarm.dataset.gone));
  window.addEventListener("pagehide", () => source.close());
}

/** A scanner ends what it reads with Enter, which must not begin a push: it leads to the next field. */
function scan(input) {
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    document.getElementById(input.dataset.scan)?.focus();
  });
}

const WANTS = { passkey, upload, drop, run, scan };
for (const [name, start] of Object.entries(WANTS)) {
  for (const element of document.querySelectorAll(`[data-${name}]`)) start(element);
}
