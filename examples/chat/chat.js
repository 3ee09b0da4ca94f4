// The page of the chat: what is shown is here, what is said goes through room.js.
import { Chat, isRoom, keyOf } from "/room.js";

const $ = (id) => document.getElementById(id);
const TYPING_MS = 4000;

const chat = new Chat();
/** The room that the address names, which anybody may have written. */
const named = () => (isRoom(location.hash.slice(1)) ? location.hash.slice(1) : null);
let current = named() ?? "lobby";
let lastTyping = 0;
/** Until when each is typing, by name, in the room that is shown. */
const typing = new Map();

// --- Coming in and going

async function begin() {
  const name = await chat.begin();
  $("login").hidden = name !== null;
  $("app").hidden = name === null;
  if (name === null) return $("name").focus();
  $("me").replaceChildren(face(name, chat.user), text("span", name));
  chat.open(current);
  show(current);
}

$("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("login-error").textContent = "";
  try {
    await chat.login($("name").value.trim());
    await begin();
  } catch (error) {
    $("login-error").textContent = error.message;
  }
});

$("leave").addEventListener("click", () => {
  if (chat.waiting.length === 0) return leave();
  $("leaving").returnValue = "stay";
  drawLeaving();
  $("leaving").showModal();
});
$("leaving").addEventListener("click", ({ target }) => target === $("leaving") && $("leaving").close());
$("leaving").addEventListener("close", () => $("leaving").returnValue === "leave" && leave());

/** What waits goes on being sent while the question stands. */
function drawLeaving() {
  const { waiting } = chat;
  const what = waiting.length === 1 ? "1 message" : `${waiting.length} messages`;
  const how = waiting.some(({ after }) => after) ? "may not have been sent" : waiting.length === 1 ? "was not sent" : "were not sent";
  $("leaving-title").textContent = waiting.length > 0 ? `${what} ${how}` : "Everything was sent";
  $("leaving-text").textContent = waiting.length > 0 ? "What was not sent is discarded if you leave now." : "Nothing is lost if you leave now.";
  $("leaving-yes").textContent = waiting.length > 0 ? "Discard and leave" : "Leave";
}

async function leave() {
  $("app").inert = true;
  await chat.leave();
  location.reload();
}

// --- Rooms

function show(name) {
  current = name;
  location.hash = name;
  typing.clear();
  chat.show(name);
  $("title").textContent = name;
  $("text").placeholder = `Message #${name}`;
  document.title = `#${name} – Loom chat`;
  drawRooms();
  drawMessages(true);
  drawPeople();
  drawTyping();
  if (matchMedia("(hover: hover)").matches) $("text").focus();
}

window.addEventListener("hashchange", () => {
  if (!chat.user) return;
  const name = named() ?? current;
  if (name !== current) show(name);
  else location.hash = current;
});

$("room-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("room").value.trim();
  if (isRoom(name)) show(name);
  $("room").value = "";
});

function drawRooms() {
  $("rooms").replaceChildren(
    ...[...chat.rooms.values()].map((room) => {
      const button = text("button", room.name);
      if (room.name === current) button.setAttribute("aria-current", "page");
      if (room.unread > 0) {
        const unread = text("span", room.unread);
        unread.className = "unread";
        unread.setAttribute("aria-label", `${room.unread} unread`);
        button.append(unread);
      }
      button.addEventListener("click", () => show(room.name));
      return wrap("li", button);
    }),
  );
}

// --- Messages

const list = $("messages");
const isAtEnd = () => list.scrollHeight - list.scrollTop - list.clientHeight < 80;
const toEnd = () => {
  list.scrollTop = list.scrollHeight;
  $("newest").hidden = true;
};
$("newest").addEventListener("click", toEnd);
/** Whether the newest are looked at: then that stays so. */
let wasAtEnd = true;
list.addEventListener("scroll", () => {
  wasAtEnd = isAtEnd();
  if (wasAtEnd) $("newest").hidden = true;
});
new ResizeObserver(() => wasAtEnd && toEnd()).observe(list);

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const GROUP_MS = 5 * 60_000;
/** Elements by the message's key: what is shown already is only changed. */
let shown = new Map();

function drawMessages(anew = false) {
  const room = chat.rooms.get(current);
  const stays = wasAtEnd || anew;
  if (anew) shown = new Map();
  const kept = new Map();
  const items = [];
  let before = null;
  for (const message of room.all()) {
    if (message.gap) {
      items.push(withClass(text("li", "Some messages are not there any more"), "gap"));
      before = null;
      continue;
    }
    const date = new Date(message.at);
    if (!before || new Date(before.at).toDateString() !== date.toDateString()) items.push(withClass(text("li", day.format(date)), "day"));
    const isFirst = before?.user !== message.user || message.at - before.at > GROUP_MS || items.at(-1).className === "day";
    const item = element(message, isFirst, !anew && room.isLive);
    kept.set(keyOf(message), item);
    items.push(item);
    before = message;
  }
  shown = kept;
  if (items.length === 0) items.push(withClass(text("li", room.isLive ? "Nobody has said anything here yet." : "…"), "empty"));
  list.replaceChildren(...items);
  if (stays) toEnd();
  else $("newest").hidden = isAtEnd();
}

function element(message, isFirst, isNew) {
  const { id, user, name } = message;
  // What waits was written here, whoever it was.
  const isMine = user === chat.user || message.offset === null;
  let item = shown.get(keyOf(message));
  if (!item) {
    item = document.createElement("li");
    item.dataset.id = id;
    item.style.setProperty("--hue", hue(user));
    const bubble = withClass(text("div", message.text), "bubble");
    const meta = withClass(document.createElement("span"), "meta");
    const time = text("time", clock.format(message.at));
    time.dateTime = new Date(message.at).toISOString();
    meta.append(time);
    if (isMine) meta.append(withClass(document.createElement("span"), "state"));
    bubble.append(meta);
    item.append(bubble);
    if (isNew) requestAnimationFrame(() => item.classList.remove("new"));
  }
  const how = message.isDoubtful ? "doubtful" : message.offset === null ? "sending" : "sent";
  item.className = ["message", isMine && "mine", isFirst && "first", how, isNew && "new"].filter(Boolean).join(" ");
  const state = item.querySelector(".state");
  if (state) {
    state.textContent = { doubtful: "?", sending: "◷", sent: "✓" }[how];
    state.title = { doubtful: whatIsKnown(message), sending: "sending", sent: "sent" }[how];
    state.setAttribute("role", "img");
    state.setAttribute("aria-label", state.title);
  }
  if (!message.isDoubtful) item.querySelector(".doubt")?.remove();
  else if (!item.querySelector(".doubt")) item.append(doubt(message));
  item.querySelector(".by")?.remove();
  item.querySelector(".face")?.remove();
  if (!isMine && isFirst) item.prepend(face(name, user), withClass(text("span", name), "by"));
  return item;
}

function whatIsKnown({ user, name, after }) {
  const known = after || user === chat.user ? "not known whether it was sent" : "not sent";
  return user === chat.user ? known : `written as ${name}, ${known}`;
}

/**
 * The room has forgotten too much to tell whether it has heard this: its writer may know from others. Or it was written by somebody
 * who is not here any more.
 */
function doubt(message) {
  const again = text("button", "Send again");
  again.addEventListener("click", () => chat.sayAgain(message));
  const discard = text("button", "Discard");
  discard.addEventListener("click", () => chat.discard(message));
  const known = whatIsKnown(message);
  const row = withClass(text("div", known[0].toUpperCase() + known.slice(1)), "doubt");
  row.append(again, discard);
  return row;
}

// --- People

function drawPeople() {
  const people = [...chat.rooms.get(current).people.entries()].map(([id, info]) => ({ id, ...info }));
  people.sort((one, other) => one.name.localeCompare(other.name));
  $("count").textContent = people.length || "";
  $("people").replaceChildren(
    ...people.map(({ user, name }) => {
      const label = text("span", name);
      if (user === chat.user) label.append(text("small", " (you)"));
      const item = document.createElement("li");
      item.append(face(name, user), label);
      return item;
    }),
  );
  const faces = people.slice(0, 5).map(({ user, name }) => face(name, user));
  if (people.length > 5) faces.push(face(`+${people.length - 5}`, "more"));
  $("faces").replaceChildren(...faces);
}

// --- Typing and sending

const field = $("text");
field.addEventListener("input", () => {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + 2}px`;
  if (field.value && Date.now() - lastTyping > TYPING_MS / 2) {
    lastTyping = Date.now();
    chat.typing(current);
  }
});
field.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer").requestSubmit();
});
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const said = field.value.trim();
  if (said) chat.say(current, said);
  field.value = "";
  field.style.height = "auto";
  lastTyping = 0;
  wasAtEnd = true;
});

function drawTyping() {
  const names = [...typing.keys()];
  const who = names.length > 2 ? "Several people are" : names.length === 2 ? `${names.join(" and ")} are` : `${names[0]} is`;
  $("typing").textContent = names.length > 0 ? `${who} typing…` : "";
}
setInterval(() => {
  for (const [name, end] of typing) if (Date.now() > end) typing.delete(name);
  drawTyping();
}, 500);

// --- What the chat says

/** However many messages come at once, they are drawn together. */
let isDue = false;
chat.onMessages = () => {
  if (isDue) return;
  isDue = true;
  setTimeout(() => {
    isDue = false;
    drawMessages();
    drawRooms();
    if ($("leaving").open) drawLeaving();
  }, 30);
};
chat.onRooms = drawRooms;
chat.onPeople = (room) => room.name === current && drawPeople();
chat.onTyping = (room, name, is) => {
  if (room.name !== current) return;
  if (is) typing.set(name, Date.now() + TYPING_MS);
  else typing.delete(name);
  drawTyping();
};
chat.onState = ({ status, transport }) => {
  const names = { webtransport: "WebTransport", websocket: "WebSocket", connecting: "connecting…", closed: "closed" };
  const state = transport ?? status;
  $("transport").dataset.state = state;
  $("transport").lastElementChild.textContent = names[state];
};
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && chat.user) chat.show(current);
});

// --- Small things

function text(tag, content) {
  const element = document.createElement(tag);
  element.textContent = content;
  return element;
}
function withClass(element, name) {
  element.className = name;
  return element;
}
function wrap(tag, child) {
  const element = document.createElement(tag);
  element.append(child);
  return element;
}
function hue(user) {
  let sum = 7;
  for (const letter of user) sum = (sum * 31 + letter.charCodeAt(0)) % 360;
  return sum;
}
function face(name, user) {
  const initials = name.startsWith("+") ? name : name.split(/\s+/).slice(0, 2).map((part) => [...part][0]).join("").toUpperCase();
  const circle = withClass(text("span", initials), "face");
  circle.style.setProperty("--hue", hue(user));
  circle.setAttribute("aria-hidden", "true");
  return circle;
}

begin();
