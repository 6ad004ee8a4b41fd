// The conductor: plays the clips of a loudspeaker one after another, in the page, because the kernel hears nothing from the page
// while a cell runs. The kernel names each clip and gives every message its turn; "stop" is a higher turn, so nothing late can start.
export default () => {                         // one call per widget model: a second view shares all of this
  let model, queue = [], current = null, turn = -1, heard = 0, refused = false, observer = null, timer = 0;
  const views = new Map();                     // view element -> its button and its line
  const now = () => performance.timeOrigin + performance.now();
  const tell = (ev, id = null, why = "") => model.send({ ev, id, why, at: Date.now() });
  const paint = () => {
    for (const { button, line } of views.values()) {
      button.style.display = refused ? "" : "none";   // not `hidden`: the button's own class would win
      line.textContent = refused ? "The browser waits for a click before it plays sound." : model.get("line");
    }
  };
  const unwait = () => { observer?.disconnect(); observer = null; clearTimeout(timer); };

  const next = () => {
    unwait();
    if (current || refused || !queue.length) return;
    const id = queue[0], element = document.getElementById(id);   // shown twice: the first copy only
    if (!element) return wait(id);
    queue.shift();
    current = element;
    const off = new AbortController(), on = (type, f) => element.addEventListener(type, f, { signal: off.signal });
    const over = ev => { off.abort(); if (current === element) { current = null; tell(ev, id); next(); } };
    const again = () => { off.abort(); current = null; queue.unshift(id); };
    on("ended", () => over("ended"));
    on("error", () => over("failed"));
    on("pause", () => {                        // its view was closed: go on in another copy, at the same place
      if (element.isConnected || current !== element || element.ended) return;
      const at = element.currentTime;
      again();
      const copy = document.getElementById(id);
      if (copy) copy.currentTime = at;
      next();
    });
    element.play().then(() => tell("playing", id), error => {
      if (current !== element || error.name === "AbortError") return;
      if (error.name !== "NotAllowedError") return over("failed");
      again(); refused = true; paint(); tell("blocked", id);      // kept for after the click
    });
  };

  const wait = id => {
    if (!views.size) return tell("blocked", id, "no view");       // nothing is lost: the next view goes on
    observer = new MutationObserver(() => document.getElementById(id) && next());
    observer.observe(document.body, { childList: true, subtree: true });
    timer = setTimeout(() => { queue.shift(); tell("lost", id); next(); }, 3000);
  };

  const stop = why => {
    const had = current || queue.length;
    queue = []; current = null; refused = false; unwait(); paint();
    for (const audio of document.querySelectorAll(`audio[id^="${model.get("key")}-"]`)) audio.pause();
    if (had) tell("stopped", null, why);
  };

  return {
    initialize(context) {
      model = context.model;
      const onMessage = message => {
        heard = now();
        if (message.turn < turn) return;                          // a straggler of a turn that was stopped
        if (message.turn > turn) { stop("new turn"); turn = message.turn; }
        if (message.op === "play" && !queue.includes(message.id) && current?.id !== message.id) {
          queue.push(message.id);
          if (!current && !observer) next();
        }
      };
      // Three guards silence the page when the kernel goes: restart, death, and a kernel or connection that says nothing any more.
      const gone = () => stop("kernel gone"), signal = model.widget_manager?.kernel?.statusChanged;
      const onStatus = (_, status) => /restarting|dead|terminating/.test(status) && gone();
      const silent = setInterval(() => (current || queue.length) && now() - heard > 7000 && gone(), 500);
      model.on("msg:custom", onMessage);
      model.on("comm_live_update", gone);
      model.on("change:line", paint);
      signal?.connect(onStatus);
      const off = new AbortController(), retry = () => refused && setTimeout(() => { refused = false; paint(); next(); });
      for (const type of ["click", "keydown"]) document.addEventListener(type, retry, { capture: true, signal: off.signal });
      return () => {
        stop("closed"); off.abort(); clearInterval(silent); signal?.disconnect(onStatus);
        model.off("msg:custom", onMessage); model.off("comm_live_update", gone); model.off("change:line", paint);
      };
    },
    render({ el }) {
      const line = document.createElement("span"), button = document.createElement("button");
      line.setAttribute("role", "status");
      button.className = "jupyter-button mod-warning";
      button.textContent = "Enable sound";
      button.style.width = "auto";
      el.style.cssText = "display:flex;gap:8px;align-items:center;min-height:28px;color:var(--jp-ui-font-color1);font-size:13px";
      el.append(button, line);
      views.set(el, { button, line });
      paint();
      tell("views", null, String(views.size));
      next();
      return () => {
        views.delete(el);
        tell("views", null, String(views.size));
        if (!views.size && observer) next();     // waiting for an element that can't come now: wait for a view instead
      };
    },
  };
};
